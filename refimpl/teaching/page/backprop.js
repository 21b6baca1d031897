// Backpropagation by hand, in JavaScript: the equations of refimpl/equations/dense.py under the same names, the functions of
// the catalogue with f′ taken at z, and mistakes that can be planted in the equations (refimpl/faults/catalogue.py).
// A matrix is a list of rows, rows are samples; W is (n_out, n_in). No page and no module system is assumed.
'use strict'

const Backprop = (() => {
  // Matrices

  const sum = list => list.reduce((total, value) => total + value, 0)
  const transpose = A => A[0].map((_, k) => A.map(row => row[k]))
  const matmul = (A, B) => A.map(row => B[0].map((_, k) => sum(row.map((value, j) => value * B[j][k]))))
  const zip = (A, B, f) => A.map((row, n) => row.map((value, j) => f(value, B[n][j])))
  const scale = (A, factor) => A.map(entry => (Array.isArray(entry) ? scale(entry, factor) : entry * factor))

  // The equations

  const EQUATIONS = {
    weighted_input: (a, W, b) => a.map(row => W.map((w, j) => sum(w.map((v, k) => v * row[k])) + (b ? b[j] : 0))),
    activation: (z, f) => f(z),
    cost: (losses, reduction) => sum(losses.flat()) / (reduction === 'mean' ? losses.length : 1),
    cost_gradient: (dlosses_ds, reduction) => (reduction === 'mean' ? dlosses_ds.map(row => row.map(v => v / dlosses_ds.length)) : dlosses_ds),
    output_error: (dC_ds, z, a, vjp) => vjp(z, a, dC_ds),
    hidden_error: (W, delta_next, z, a, vjp) => vjp(z, a, matmul(delta_next, W)),
    weight_gradient: (delta, a) => matmul(transpose(delta), a),
    bias_gradient: delta => transpose(delta).map(sum),
    input_gradient: (delta, W) => matmul(delta, W),
  }

  // Activations: f(z) and f′(z), which keeps its digits where a unit saturates

  const sigmoid = z => 1 / (1 + Math.exp(-z))
  const sigmoid_slope = z => sigmoid(z) / (1 + Math.exp(z))
  const elu = (z, alpha) => (z > 0 ? z : alpha * Math.expm1(z))
  const elu_slope = (z, alpha) => (z > 0 ? 1 : alpha * Math.exp(z))
  const SELU_SCALE = 1.0507009873554805
  const SELU_ALPHA = 1.6732632423543772
  const ROOT = Math.sqrt(2 / Math.PI)
  const gelu_argument = z => 2 * ROOT * (z + 0.044715 * z * z * z)
  const softplus = z => Math.max(z, 0) + Math.log1p(Math.exp(-Math.abs(z)))
  const normal_distribution = z => erfc(-z / Math.SQRT2) / 2

  // (x + 3.75) exp(x²) erfc(x) in Chebyshev polynomials of (x − 3.75)/(x + 3.75) (Shepherd and Laframboise 1981);
  // the coefficients were computed with 60 digits
  const ERFC = [
    1.5802719754089015, -1.41552916360620002, 0.53101681265845892, -0.16770511573096465, 0.044234890018352996,
    -0.0095061391677410724, 0.0015696224296742666, -0.00016786612621687457, 1.9716770294253339e-6,
    3.0869716206574232e-6, -4.936920694378020e-7, -9.5347314665969909e-9, 1.355826598349273e-8, -1.0830423386818937e-9,
    -2.9040184105173025e-10, 5.3077874779184120e-11, 5.7807453010944490e-12, -1.9937853144156817e-12,
    -1.1724828156626574e-13, 7.2427724258198518e-14, 2.8807292328713078e-15, -2.7047403683202760e-15,
    -1.0963030130900087e-16, 1.0501564927720586e-16, 6.164032198401936e-18,
  ]

  function erfc(x) {
    if (x < 0) return 2 - erfc(-x)
    if (x > 27.3) return 0
    const t = (x - 3.75) / (x + 3.75)
    let [b0, b1] = [0, 0]
    for (let k = ERFC.length - 1; k > 0; k--) [b0, b1] = [2 * t * b0 - b1 + ERFC[k], b0]
    const high = Math.round(x * 1024) / 1024 // x² = high² + (x − high)(x + high), and high² is exact
    return ((t * b0 - b1 + ERFC[0]) / (x + 3.75)) * Math.exp(-high * high) * Math.exp(-(x - high) * (x + high))
  }

  const ELEMENTWISE = {
    identity: [z => z, () => 1],
    relu: [z => Math.max(z, 0), z => (z > 0 ? 1 : 0)],
    leaky_relu: [(z, p) => (z > 0 ? z : p.negative_slope * z), (z, p) => (z > 0 ? 1 : p.negative_slope)],
    elu: [(z, p) => elu(z, p.alpha), (z, p) => elu_slope(z, p.alpha)],
    selu: [z => SELU_SCALE * elu(z, SELU_ALPHA), z => SELU_SCALE * elu_slope(z, SELU_ALPHA)],
    gelu: [
      z => z * normal_distribution(z),
      z => normal_distribution(z) + (z * Math.exp((-z * z) / 2)) / Math.sqrt(2 * Math.PI),
    ],
    gelu_tanh: [
      z => z * sigmoid(gelu_argument(z)),
      z => {
        const slope = sigmoid_slope(gelu_argument(z))
        return sigmoid(gelu_argument(z)) + (slope > 0 ? z * 2 * ROOT * (1 + 0.134145 * z * z) * slope : 0)
      },
    ],
    softplus: [softplus, sigmoid],
    sigmoid: [sigmoid, sigmoid_slope],
    tanh: [Math.tanh, z => { const t = Math.exp(-2 * Math.abs(z)); return (4 * t) / ((1 + t) * (1 + t)) }],
    silu: [z => z * sigmoid(z), z => sigmoid(z) + z * sigmoid_slope(z)],
    softsign: [z => z / (1 + Math.abs(z)), z => 1 / (1 + Math.abs(z)) / (1 + Math.abs(z))],
  }

  const softmax = row => {
    const largest = Math.max(...row)
    const e = row.map(value => Math.exp(value - largest))
    const total = sum(e)
    return e.map(value => value / total)
  }
  const log_softmax = row => {
    const largest = Math.max(...row)
    const total = Math.log(sum(row.map(value => Math.exp(value - largest))))
    return row.map(value => value - largest - total)
  }
  const softmax_vjp = (z, a, d) => a.map((row, n) => {
    const mean = sum(row.map((value, j) => value * d[n][j]))
    return row.map((value, j) => value * (d[n][j] - mean))
  })

  const named = given => (typeof given === 'string' ? { name: given } : given) // with its parameters
  const DEFAULTS = { leaky_relu: { negative_slope: 0.01 }, elu: { alpha: 1 }, huber: { delta: 1 } }
  const parameters = given => ({ ...DEFAULTS[named(given).name], ...named(given) })

  function activation(given) {
    const p = parameters(given)
    if (p.name === 'softmax') return { f: z => z.map(softmax), vjp: softmax_vjp, slope: null }
    const [f, slope] = ELEMENTWISE[p.name]
    return {
      f: z => z.map(row => row.map(value => f(value, p))),
      slope: z => z.map(row => row.map(value => slope(value, p))),
      vjp: (z, a, d) => zip(z, d, (value, dC_da) => dC_da * slope(value, p)),
    }
  }

  // Losses of one output, or of a sample: C(s, y) and ∂C/∂s

  const each = (f, slope) => ({ losses: (s, y) => zip(s, y, f), slope: (s, y) => zip(s, y, slope) })
  const LOSSES = {
    squared_error: () => each((s, y) => ((s - y) * (s - y)) / 2, (s, y) => s - y),
    mean_squared_error: (_, n) => each((s, y) => ((s - y) * (s - y)) / n, (s, y) => (2 * (s - y)) / n),
    absolute_error: () => each((s, y) => Math.abs(s - y), (s, y) => Math.sign(s - y)),
    huber: p => each(
      (s, y) => { const r = Math.abs(s - y); const near = Math.min(r, p.delta); return near * (r - near / 2) },
      (s, y) => Math.max(-p.delta, Math.min(p.delta, s - y)),
    ),
    cross_entropy: () => ({
      losses: (s, y) => s.map((row, n) => { const l = log_softmax(row); return -sum(l.map((v, j) => y[n][j] * v)) }),
      slope: (s, y) => s.map((row, n) => { const mass = sum(y[n]); return softmax(row).map((v, j) => mass * v - y[n][j]) }),
    }),
    binary_cross_entropy: () => each((s, y) => softplus(s) - y * s, (s, y) => sigmoid(s) - y),
    negative_log_likelihood: () => each((s, y) => -y * Math.log(y === 0 ? 1 : s), (s, y) => -y / (y === 0 ? 1 : s)),
  }

  // The network, forward and backward

  // params {W1: rows, b1: list, …}, x and y rows; equations: one entry a layer. → {loss, grads, values}
  function run(network, params, x, y, equations) {
    const layers = network.layers.map((layer, l) => ({ ...activation(layer.activation), ...(equations ? equations[l] : EQUATIONS), bias: layer.bias !== false }))
    const last = layers.length
    const values = { a1: x }
    for (let l = 1; l <= last; l++) {
      const layer = layers[l - 1]
      values[`z${l + 1}`] = layer.weighted_input(values[`a${l}`], params[`W${l}`], layer.bias ? params[`b${l}`] : null)
      values[`a${l + 1}`] = layer.activation(values[`z${l + 1}`], layer.f)
      if (layer.slope) values[`slope${l + 1}`] = layer.slope(values[`z${l + 1}`])
    }
    const output = layers[last - 1]
    const s = values[`a${last + 1}`]
    const loss = LOSSES[named(network.loss).name](parameters(network.loss), s[0].length)
    const reduction = network.reduction ?? 'mean'
    values.C = output.cost(loss.losses(s, y), reduction)
    values[`da${last + 1}`] = output.cost_gradient(loss.slope(s, y), reduction)
    let delta = output.output_error(values[`da${last + 1}`], values[`z${last + 1}`], s, output.vjp)
    for (let l = last; l >= 1; l--) {
      values[`delta${l + 1}`] = delta
      values[`dW${l}`] = layers[l - 1].weight_gradient(delta, values[`a${l}`])
      if (layers[l - 1].bias) values[`db${l}`] = layers[l - 1].bias_gradient(delta)
      if (l === 1) break
      const before = layers[l - 2]
      const noting = (z, a, d) => { values[`da${l}`] = d; return before.vjp(z, a, d) }
      delta = layers[l - 1].hidden_error(params[`W${l}`], delta, values[`z${l}`], values[`a${l}`], noting)
    }
    values.dx = layers[0].input_gradient(delta, params.W1)
    values.da1 = values.dx
    const grads = {}
    for (const name of Object.keys(params)) grads[name] = values[`d${name}`]
    return { loss: values.C, grads, values }
  }

  // Mistakes. m: {network, y, equations: one entry a layer, names}. A layer is counted from 1; 0: the whole network.

  const change = (m, layer, name, make) => { m.equations[layer - 1] = { ...m.equations[layer - 1], [name]: make(m.equations[layer - 1][name]) } }
  const depth = m => m.equations.length
  const layers_of = (m, layer) => (layer ? [layer] : m.equations.map((_, l) => l + 1))
  const change_vjp = (m, layer, make) => {
    if (layer === depth(m)) change(m, layer, 'output_error', right => (d, z, a, vjp) => right(d, z, a, make(vjp)))
    else change(m, layer + 1, 'hidden_error', right => (W, delta, z, a, vjp) => right(W, delta, z, a, make(vjp)))
  }
  const cost_gradient = make => m => change(m, depth(m), 'cost_gradient', right => (d, reduction) => make(right(d, reduction), m))
  const gradients = factor => (m, layer) => {
    for (const l of layers_of(m, layer)) {
      for (const name of ['weight_gradient', 'bias_gradient']) change(m, l, name, right => (...operands) => scale(right(...operands), factor(m)))
    }
  }
  const recall = (m, layer, other, equation, choose) => {
    let seen
    change(m, other, equation, right => (...operands) => { const made = right(...operands); seen = choose(made, operands[0]); return made })
    change(m, layer, 'weight_gradient', right => delta => right(delta, seen))
  }

  const FAULTS = {
    not_averaged: m => change(m, depth(m), 'cost_gradient', right => d => right(d, 'sum')),
    averaged_twice: cost_gradient((d, m) => scale(d, 1 / d.length)),
    averaged_sum: cost_gradient(d => scale(d, 1 / d.length)),
    averaged_at_every_layer: m => {
      for (let l = 2; l <= depth(m); l++) change(m, l, 'hidden_error', right => (...operands) => scale(right(...operands), 1 / m.y.length))
    },
    layer_averaged_again: gradients(m => 1 / m.y.length),
    accumulated_twice: gradients(() => 2),
    wrong_sign: gradients(() => -1),
    squared_error_without_half: cost_gradient(d => scale(d, 2)),
    squared_error_with_half: cost_gradient(d => scale(d, 0.5)),
    averaged_over_outputs: cost_gradient(d => scale(d, 1 / d[0].length)),
    not_averaged_over_outputs: cost_gradient(d => scale(d, d[0].length)),
    bias_gradient_averaged: (m, layer) => change(m, layer, 'bias_gradient', right => delta => scale(right(delta), 1 / delta.length)),
    bias_gradient_missing: (m, layer) => change(m, layer, 'bias_gradient', right => delta => scale(right(delta), 0)),
    bias_gradient_from_row_sums: (m, layer) => {
      let seen
      change(m, layer, 'weight_gradient', right => (delta, a) => (seen = right(delta, a)))
      change(m, layer, 'bias_gradient', () => () => seen.map(sum))
    },
    slope_dropped: (m, layer) => change_vjp(m, layer, () => (z, a, d) => d),
    output_slope_dropped: (m, layer) => change_vjp(m, layer, () => (z, a, d) => d),
    slope_at_activation: (m, layer) => change_vjp(m, layer, vjp => (z, a, d) => vjp(a, a, d)),
    slope_twice: (m, layer) => change_vjp(m, layer, vjp => (z, a, d) => vjp(z, a, vjp(z, a, d))),
    activation_formula_fed_z: (m, layer) => {
      const name = named(m.network.layers[layer - 1].activation).name
      const slope = name === 'sigmoid' ? z => z * (1 - z) : z => 1 - z * z
      change_vjp(m, layer, () => (z, a, d) => (name === 'softmax' ? softmax_vjp(z, z, d) : zip(z, d, (value, dC_da) => dC_da * slope(value))))
    },
    relu_mask_on_gradient: (m, layer) => change_vjp(m, layer, () => (z, a, d) => d.map(row => row.map(v => (v > 0 ? v : 0)))),
    diagonal_softmax_jacobian: (m, layer) => change_vjp(m, layer, () => (z, a, d) => zip(a, d, (value, dC_da) => dC_da * (value * (1 - value)))),
    weight_not_transposed: (m, layer) => change(m, layer, 'hidden_error', right => (W, delta, z, a, vjp) => right(transpose(W), delta, z, a, vjp)),
    z_in_weight_gradient: (m, layer) => recall(m, layer, layer - 1, 'weighted_input', z => z),
    output_in_weight_gradient: (m, layer) => recall(m, layer, layer, 'activation', a => a),
    earlier_activation_in_weight_gradient: (m, layer) => recall(m, layer, layer - 1, 'weighted_input', (z, a) => a),
    weight_updated_first: (m, layer, rate) => {
      for (const l of layer ? [layer] : layers_of(m, 0).slice(1)) {
        let seen
        change(m, l, 'weight_gradient', right => (delta, a) => (seen = right(delta, a)))
        change(m, l, 'hidden_error', right => (W, delta, z, a, vjp) => right(zip(W, seen, (w, g) => w - g * rate), delta, z, a, vjp))
      }
    },
    regulariser_added: (m, layer, strength) => {
      for (const l of layers_of(m, layer)) {
        let seen
        change(m, l, 'weighted_input', right => (a, W, b) => right(a, (seen = W), b))
        change(m, l, 'weight_gradient', right => (delta, a) => zip(right(delta, a), seen, (g, w) => g + w * strength))
      }
    },
    gradient_of_output: m => change(m, depth(m), 'cost_gradient', right => (d, reduction) => right(d.map(row => row.map(() => 1)), reduction)),
    last_sample_only: cost_gradient(d => d.map((row, n) => row.map(v => (n === d.length - 1 ? v : 0)))),
    layer_last_sample_only: (m, layer) => {
      change(m, layer, 'weight_gradient', right => (delta, a) => right(delta.slice(-1), a.slice(-1)))
      change(m, layer, 'bias_gradient', right => delta => right(delta.slice(-1)))
    },
    layers_swapped: (m, layer) => {
      const other = { [layer]: layer + 1, [layer + 1]: layer }
      for (const [name, source] of Object.entries(m.names)) m.names[name] = source[0] + (other[source.slice(1)] ?? source.slice(1))
    },
  }

  // As run, with the fault {name, layer, parameter} planted; what it does to the gradients' names is done too.
  function broken(network, params, x, y, fault) {
    const m = { network, y, equations: network.layers.map(() => EQUATIONS), names: {} }
    for (const name of Object.keys(params)) m.names[name] = name
    FAULTS[fault.name](m, fault.layer, fault.parameter)
    const found = run(network, params, x, y, m.equations)
    const grads = {}
    const values = { ...found.values }
    for (const [name, source] of Object.entries(m.names)) {
      grads[name] = found.grads[source]
      values[`d${name}`] = grads[name]
    }
    return { loss: found.loss, grads, values }
  }

  return { run, broken, erfc, EQUATIONS, FAULTS, ACTIVATIONS: [...Object.keys(ELEMENTWISE), 'softmax'], LOSSES: Object.keys(LOSSES) }
})()

if (typeof module !== 'undefined') module.exports = Backprop
