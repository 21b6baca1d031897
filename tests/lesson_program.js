// The lesson's backpropagation behind refimpl.process/1, so that it goes through the conformance suite:
//   refimpl conform -- node tests/lesson_program.js
// Its own messages, for the tests: {"type":"erfc","x":[…]} and an evaluate with a "fault".
'use strict'
const Backprop = require('../refimpl/teaching/page/backprop.js')

const rows = ({ shape, data }) => {
  const width = shape.slice(1).reduce((product, size) => product * size, 1)
  return Array.from({ length: shape[0] }, (_, n) => data.slice(n * width, (n + 1) * width))
}
const word = value => (Number.isFinite(value) ? value : Number.isNaN(value) ? 'NaN' : value > 0 ? 'Infinity' : '-Infinity')

function evaluate({ id, network, parameters, x, y, fault }) {
  const params = {}
  for (const [name, tensor] of Object.entries(parameters)) params[name] = name[0] === 'W' ? rows(tensor) : tensor.data
  const last = network.layers.at(-1).size
  const labels = y.shape.length === 1 && ['cross_entropy', 'negative_log_likelihood'].includes(network.loss.name ?? network.loss)
  const targets = labels ? y.data.map(label => Array.from({ length: last }, (_, j) => (j === label ? 1 : 0))) : rows(y)
  const found = fault ? Backprop.broken(network, params, rows(x), targets, fault) : Backprop.run(network, params, rows(x), targets)
  const tensor = (name, grad) => ({ shape: name[0] === 'W' ? [grad.length, grad[0].length] : [grad.length], data: grad.flat().map(word) })
  const gradients = {}
  for (const [name, grad] of Object.entries(found.grads)) gradients[name] = tensor(name, grad)
  return { type: 'answer', id, loss: word(found.loss), gradients }
}

const hello = { type: 'hello', format: 'refimpl.process/1', name: 'lesson', dtypes: ['float64'], activations: Backprop.ACTIVATIONS, losses: Backprop.LOSSES }
require('readline').createInterface({ input: process.stdin }).on('line', line => {
  const message = JSON.parse(line)
  if (message.type === 'bye') process.exit(0)
  const answer = message.type === 'hello' ? hello : message.type === 'erfc' ? message.x.map(Backprop.erfc) : evaluate(message)
  console.log(JSON.stringify(answer))
})
