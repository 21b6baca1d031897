// Backpropagation by hand in JavaScript, behind refimpl.process/1: refimpl conform -- node backprop.js
const activations = { // name: [f(z), f'(z) from z, so that a saturated unit keeps its digits]
  identity: [z => z, () => 1],
  relu: [z => (z > 0 ? z : 0), z => (z > 0 ? 1 : 0)],
  sigmoid: [z => 1 / (1 + Math.exp(-z)), z => { const t = Math.exp(-Math.abs(z)); return t / ((1 + t) * (1 + t)) }],
  tanh: [Math.tanh, z => { const t = Math.exp(-2 * Math.abs(z)); return (4 * t) / ((1 + t) * (1 + t)) }],
  softplus: [z => Math.max(z, 0) + Math.log1p(Math.exp(-Math.abs(z))), z => activations.sigmoid[0](z)],
  softsign: [z => z / (1 + Math.abs(z)), z => 1 / ((1 + Math.abs(z)) * (1 + Math.abs(z)))],
}
const losses = { // name: [loss of one sample, its gradient by s]
  squared_error: [(s, y) => sum(s.map((v, j) => ((v - y[j]) * (v - y[j])) / 2)), (s, y) => s.map((v, j) => v - y[j])],
  mean_squared_error: [
    (s, y) => sum(s.map((v, j) => (v - y[j]) * (v - y[j]))) / s.length,
    (s, y) => s.map((v, j) => (2 * (v - y[j])) / s.length),
  ],
  cross_entropy: [
    (s, y) => { const m = Math.max(...s), l = m + Math.log(sum(s.map(v => Math.exp(v - m)))); return sum(s.map((v, j) => y[j] * (l - v))) },
    (s, y) => { const m = Math.max(...s), e = s.map(v => Math.exp(v - m)), t = sum(e); return e.map((v, j) => v / t - y[j]) },
  ],
}
const sum = list => list.reduce((total, value) => total + value, 0)
const rows = ({ shape, data }) => { // further axes are flattened; () is one number a row
  const width = shape.slice(1).reduce((product, size) => product * size, 1)
  return Array.from({ length: shape[0] }, (_, i) => data.slice(i * width, (i + 1) * width))
}

function evaluate({ id, network, parameters, x, y }) {
  const W = [], b = [], a = [rows(x)], z = [], n = x.shape[0], share = network.reduction === 'mean' ? 1 / n : 1
  network.layers.forEach((layer, l) => { // z = a Wᵀ + b, a = f(z)
    W.push(rows(parameters[`W${l + 1}`])); b.push(parameters[`b${l + 1}`]?.data)
    z.push(a[l].map(row => W[l].map((w, j) => sum(w.map((v, k) => v * row[k])) + (b[l] ? b[l][j] : 0))))
    a.push(z[l].map(row => row.map(activations[layer.activation][0])))
  })
  const s = a.at(-1), labels = y.shape.length === 1 && network.loss === 'cross_entropy'
  const target = labels ? y.data.map(label => s[0].map((_, j) => (j === label ? 1 : 0))) : rows(y)
  const [loss, slope] = losses[network.loss], gradients = {}
  let d = s.map((row, i) => slope(row, target[i]).map(v => v * share)) // ∂C/∂s
  for (let l = W.length - 1; l >= 0; l--) {
    const f1 = activations[network.layers[l].activation][1]
    const delta = d.map((row, i) => row.map((v, j) => v * f1(z[l][i][j]))) // δ = ∂C/∂a ⊙ f'(z)
    const dW = W[l].map((w, j) => w.map((_, k) => sum(delta.map((row, i) => row[j] * a[l][i][k])))) // dW = δᵀ a
    gradients[`W${l + 1}`] = { shape: [dW.length, dW[0].length], data: dW.flat() }
    if (b[l]) gradients[`b${l + 1}`] = { shape: [b[l].length], data: b[l].map((_, j) => sum(delta.map(row => row[j]))) }
    d = delta.map(row => W[l][0].map((_, k) => sum(row.map((v, j) => v * W[l][j][k])))) // ∂C/∂a = δ W
  }
  return { type: 'answer', id, loss: sum(s.map((row, i) => loss(row, target[i]))) * share, gradients }
}

const hello = { type: 'hello', format: 'refimpl.process/1', name: 'backprop.js', dtypes: ['float64'] }
Object.assign(hello, { activations: Object.keys(activations), losses: Object.keys(losses) })
require('readline').createInterface({ input: process.stdin }).on('line', line => {
  const message = JSON.parse(line)
  if (message.type === 'bye') process.exit(0)
  console.log(JSON.stringify(message.type === 'hello' ? hello : evaluate(message)))
})
