// The lesson's page: what is shown, and what a click or a key does. All numbers come of Backprop.
'use strict'

const lesson = JSON.parse(document.getElementById('lesson').textContent)
const sizes = [lesson.x[0].length, ...lesson.network.layers.map(layer => layer.size)]
const copy = value => JSON.parse(JSON.stringify(value))
const fresh = () => ({ params: copy(lesson.params), x: copy(lesson.x), y: copy(lesson.y), history: [] })
const state = { ...fresh(), position: 1, sample: 0, chosen: lesson.chosen, fault: null, rate: lesson.learning_rate }
let right = null // the pass as it should be
let shown = null // and as it is: the same, unless a mistake is planted

const get = id => document.getElementById(id)
const raised = number => String(number).replace(/\d/g, digit => '⁰¹²³⁴⁵⁶⁷⁸⁹'[digit])
const lowered = text => String(text).replace(/\d/g, digit => '₀₁₂₃₄₅₆₇₈₉'[digit])
const signed = text => String(text).replace(/-/g, '−')
const format = value => (Number.isFinite(value) ? signed(Number(value.toPrecision(5))) : signed(value))

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name)
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  made.append(...children)
  return made
}

function drawing(name, attributes = {}, ...children) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name)
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  made.append(...children)
  return made
}

// What a value is called: delta3 → δ³, dW2 → ∂C/∂W²
function title(name) {
  if (name === 'dx') return '∂C/∂x'
  const [, kind, layer] = name.match(/^([A-Za-z]+)(\d*)$/)
  const letter = { delta: 'δ', slope: 'f′(z', dW: '∂C/∂W', db: '∂C/∂b', da: '∂C/∂a' }[kind] ?? kind
  return letter + raised(layer) + (kind === 'slope' ? ')' : '')
}

function compute() {
  right = Backprop.run(lesson.network, state.params, state.x, state.y)
  shown = right
  if (state.fault !== null) shown = Backprop.broken(lesson.network, state.params, state.x, state.y, lesson.faults[state.fault])
}

const flat = value => (Array.isArray(value) ? value.flat(Infinity) : [value])
function differs(name) {
  const [a, b] = [flat(right.values[name]), flat(shown.values[name])]
  const largest = Math.max(...a.map(Math.abs))
  return a.some((value, i) => !(Math.abs(value - b[i]) <= 1e-9 * largest))
}

// The values of the steps up to the present one
const known = name => lesson.steps.findIndex(step => step.name === name) < state.position

// The network

const COLUMN = 150, ROW = 74, RADIUS = 24, MARGIN = 44
const spot = (layer, j) => {
  const tallest = Math.max(...sizes)
  return [MARGIN + COLUMN * (layer - 1), MARGIN + ROW * ((tallest - 1) / 2 + j - (sizes[layer - 1] - 1) / 2)]
}

function picture() {
  const step = lesson.steps[state.position - 1]
  const [width, height] = [2 * MARGIN + COLUMN * (sizes.length - 1), 2 * MARGIN + ROW * (Math.max(...sizes) - 1) + 26]
  const svg = drawing('svg', { viewBox: `0 0 ${width} ${height}`, role: 'group', 'aria-label': 'The network. Its weights are buttons.' })
  const weights = Object.keys(lesson.params).filter(name => name[0] === 'W')
  const largest = Math.max(...weights.filter(name => known(`d${name}`)).flatMap(name => flat(shown.grads[name]).map(Math.abs)), 1e-300)
  for (const name of weights) {
    const l = Number(name.slice(1))
    shown.grads[name].forEach((row, j) => row.forEach((gradient, k) => svg.append(edge(step, name, l, j, k, gradient, largest))))
  }
  sizes.forEach((size, at) => { for (let j = 0; j < size; j++) svg.append(neuron(step, at + 1, j)) })
  sizes.forEach((_, at) => {
    const label = drawing('text', { x: spot(at + 1, 0)[0], y: height - 6, 'text-anchor': 'middle' })
    label.textContent = at === 0 ? 'x = a¹' : `${lesson.labels[at]}`
    svg.append(label)
  })
  get('picture').replaceChildren(svg)
}

// Whether a line leads on from the chosen weight to the cost
function onTheWay(l, k) {
  const [, layer, to] = state.chosen.match(/^W(\d+)\[(\d+),/).map(Number)
  return l > layer + 1 || (l === layer + 1 && k === to - 1)
}

function edge(step, name, l, j, k, gradient, largest) {
  const [x1, y1] = spot(l, k), [x2, y2] = spot(l + 1, j)
  const there = known(`d${name}`)
  const classes = ['edge']
  if (there) classes.push(gradient < 0 ? 'negative' : 'positive')
  if (step.name === `d${name}` || step.name === `z${l + 1}` || (step.phase === 'backward' && step.name === `delta${l}`)) classes.push('now')
  const mine = state.chosen === `${name}[${j + 1},${k + 1}]`
  if (mine) classes.push('path')
  else if (onTheWay(l, k)) classes.push('way')
  const width = there ? 1 + (6 * Math.abs(gradient)) / largest : 1.25
  const words = `${title(name)} ${j + 1},${k + 1} = ${format(state.params[name][j][k])}${there ? `, gradient ${format(gradient)}` : ''}`
  const line = drawing('line', {
    x1: x1 + RADIUS, y1, x2: x2 - RADIUS, y2, class: classes.join(' '), 'stroke-width': Math.min(mine ? width + 2 : width, 9).toFixed(2),
    tabindex: 0, role: 'button', 'aria-label': words, 'data-weight': `${name}[${j + 1},${k + 1}]`,
    'aria-pressed': String(mine),
  })
  line.append(drawing('title'))
  line.firstChild.textContent = words
  const choose = () => { state.chosen = `${name}[${j + 1},${k + 1}]`; show(); document.querySelector(`[data-weight="${state.chosen}"]`).focus() }
  line.addEventListener('click', choose)
  line.addEventListener('keydown', event => { if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); choose() } })
  return line
}

function neuron(step, layer, j) {
  const [x, y] = spot(layer, j)
  const now = [`z${layer}`, `a${layer}`, `delta${layer}`, `da${layer}`].includes(step.name) || (step.name === `db${layer - 1}`) || (step.name === 'dx' && layer === 1)
  const group = drawing('g')
  group.append(drawing('circle', { cx: x, cy: y, r: RADIUS, class: now ? 'neuron now' : 'neuron' }))
  const value = layer === 1 || known(`a${layer}`) ? shown.values[`a${layer}`][state.sample][j] : null
  const text = drawing('text', { x, y: y + 4, 'text-anchor': 'middle', 'data-neuron': `a${layer}[${j + 1}]` })
  text.textContent = value === null ? '·' : signed(Number(value.toPrecision(3)))
  group.append(text)
  if (layer > 1 && known(`delta${layer}`)) {
    const delta = drawing('text', { x, y: y + RADIUS + 13, 'text-anchor': 'middle', class: differs(`delta${layer}`) ? 'delta wrong' : 'delta' })
    delta.textContent = `δ ${signed(Number(shown.values[`delta${layer}`][state.sample][j].toPrecision(3)))}`
    group.append(delta)
  }
  return group
}

// The present step

function present() {
  const step = lesson.steps[state.position - 1]
  get('position').value = state.position
  get('back').disabled = get('first').disabled = state.position === 1
  get('forward').disabled = state.position === lesson.steps.length
  get('where').textContent = `Step ${step.number} of ${lesson.steps.length}, ${step.phase} pass: ${title(step.name)}, equation ${step.equation}`
  get('equation').innerHTML = step.mathml
  get('note').textContent = step.note
  get('code').textContent = step.source
  get('place').textContent = `${step.file}, line ${step.line}: ${step.function}`
  const tables = step.operands.filter(name => name in state.params || name in shown.values).map(name => table(name, value(name)))
  tables.push(table(step.name, value(step.name), state.fault !== null && differs(step.name) ? 'wrong' : ''))
  if (state.fault !== null && differs(step.name)) tables.push(table(step.name, right.values[step.name], '', ' should be'))
  get('values').replaceChildren(...tables)
}

const value = name => state.params[name] ?? shown.values[name]

function table(name, value, mark = '', remark = '') {
  const rows = Array.isArray(value) ? (Array.isArray(value[0]) ? value : [value]) : [[value]]
  const made = element('table', { 'data-name': name + remark })
  made.append(element('caption', { class: mark }, title(name) + remark))
  rows.forEach((row, n) => {
    const line = element('tr')
    row.forEach((entry, j) => line.append(element('td', { 'data-index': `${n},${j}`, 'data-value': entry, class: mark }, format(entry))))
    made.append(line)
  })
  return element('div', { tabindex: 0, role: 'group', 'aria-label': title(name) + remark }, made)
}

// The chain rule for the chosen weight, in one sample

const number = value => (value < 0 ? `(${format(value)})` : format(value))
const z_name = (layer, j) => `z${raised(layer)}${lowered(j + 1)}`
const last = sizes.length
const identity = layer => (lesson.network.layers[layer - 2].activation.name ?? lesson.network.layers[layer - 2].activation) === 'identity'
const at = (name, j) => shown.values[name][state.sample][j]

function chain() {
  const [, l, j, k] = state.chosen.match(/^W(\d+)\[(\d+),(\d+)\]$/).map(Number)
  const [to, from] = [j - 1, k - 1]
  const lines = []
  const w = `w${raised(l)}${lowered(`${j}${j > 9 || k > 9 ? ',' : ''}${k}`)}`
  const several = state.x.length > 1
  if (several) lines.push(`∂C/∂${w} = Σ δ${raised(l + 1)}${lowered(j)} a${raised(l)}${lowered(k)} over ${state.x.length} samples = ${format(right.grads[`W${l}`][to][from])}; in sample ${state.sample + 1}:`)
  const product = right.values[`delta${l + 1}`][state.sample][to] * right.values[`a${l}`][state.sample][from]
  lines.push(`${several ? '' : `∂C/∂${w} = `}δ${raised(l + 1)}${lowered(j)} · a${raised(l)}${lowered(k)} = ${format(right.values[`delta${l + 1}`][state.sample][to])} · ${number(right.values[`a${l}`][state.sample][from])} = ${format(product)}`)
  lines.push(...behind(l + 1, [to]))
  get('lines').textContent = lines.join('\n')
  get('lines').dataset.value = product
  const found = ways(l + 1, to, right.values[`a${l}`][state.sample][from], `a${raised(l)}${lowered(k)}`)
  const total = found.reduce((sum, way) => sum + way.value, 0)
  get('count').textContent = `${found.length} ${found.length === 1 ? 'path leads' : 'paths lead'} from the weight to the cost; ${found.length === 1 ? 'it carries' : 'together they carry'} ${format(total)}.`
  get('count').dataset.value = total
  found.sort((a, b) => Math.abs(b.value) - Math.abs(a.value))
  get('paths').textContent = found.slice(0, 16).map(way => `${way.through} → C: ${way.factors.join(' · ')} = ${way.numbers.map(number).join(' · ')} = ${format(way.value)}`).join('\n')
}

// δ of neurons of a layer, and on to the cost
function behind(layer, neurons) {
  const v = right.values, n = state.sample
  const lines = []
  for (const j of neurons) {
    const delta = `δ${raised(layer)}${lowered(j + 1)}`
    const a = layer === last ? (sizes[last - 1] === 1 ? '∂C/∂s' : `∂C/∂s${lowered(j + 1)}`) : `∂C/∂a${raised(layer)}${lowered(j + 1)}`
    if (!v[`slope${layer}`]) lines.push(`${delta} = Σ ∂C/∂aᵢ ∂aᵢ/∂z${lowered(j + 1)} (softmax) = ${format(v[`delta${layer}`][n][j])}`)
    else if (identity(layer)) lines.push(`${delta} = ${a} = ${format(v[`delta${layer}`][n][j])}`)
    else lines.push(`${delta} = ${a} · f′(${z_name(layer, j)}) = ${format(v[`da${layer}`][n][j])} · ${number(v[`slope${layer}`][n][j])} = ${format(v[`delta${layer}`][n][j])}`)
  }
  if (layer === last) return lines
  for (const j of neurons) {
    const terms = v[`delta${layer + 1}`][n].map((_, i) => `δ${raised(layer + 1)}${lowered(i + 1)} w${raised(layer)}${lowered(`${i + 1}${j + 1}`)}`)
    const put = v[`delta${layer + 1}`][n].map((delta, i) => `${number(delta)} · ${number(state.params[`W${layer}`][i][j])}`)
    lines.push(`∂C/∂a${raised(layer)}${lowered(j + 1)} = ${terms.join(' + ')} = ${put.join(' + ')} = ${format(v[`da${layer}`][n][j])}`)
  }
  return [...lines, ...behind(layer + 1, Array.from({ length: sizes[layer] }, (_, i) => i))]
}

// Every way from z of a neuron to the cost: the product of the local derivatives along it
function ways(layer, j, factor, name) {
  const v = right.values, n = state.sample
  const starts = []
  if (v[`slope${layer}`]) starts.push([j, v[`slope${layer}`][n][j], `f′(${z_name(layer, j)})`])
  else v[`a${layer}`][n].forEach((a, i) => starts.push([i, a * ((i === j) - v[`a${layer}`][n][j]), `∂a${lowered(i + 1)}/∂z${lowered(j + 1)}`]))
  const found = []
  for (const [i, local, called] of starts) {
    const through = `a${raised(layer)}${lowered(i + 1)}`
    const mine = identity(layer) ? [[factor], [name]] : [[local, factor], [called, name]]
    if (layer === last) {
      const dC = v[`da${last}`][n][i]
      found.push({ through, numbers: [dC, ...mine[0]], factors: [sizes[last - 1] === 1 ? '∂C/∂s' : `∂C/∂s${lowered(i + 1)}`, ...mine[1]], value: mine[0].reduce((p, f) => p * f, dC) })
      continue
    }
    state.params[`W${layer}`].forEach((row, next) => {
      for (const way of ways(layer + 1, next, row[i], `w${raised(layer)}${lowered(`${next + 1}${i + 1}`)}`)) {
        found.push({
          through: `${through} → ${way.through}`, numbers: [...way.numbers, ...mine[0]], factors: [...way.factors, ...mine[1]],
          value: mine[0].reduce((p, f) => p * f, way.value),
        })
      }
    })
  }
  return found
}

// Mistakes

function breakage() {
  if (state.fault === null) {
    get('explanation').textContent = 'Choose a mistake that people make. What it spoils is marked in red, from the first wrong quantity on.'
    get('verdict').textContent = ''
    return
  }
  const fault = lesson.faults[state.fault]
  get('explanation').textContent = `${fault.explanation} Remedy: ${fault.remedy}`
  const wrong = lesson.steps.map(step => step.name).filter(differs)
  get('verdict').dataset.wrong = wrong.join(' ')
  get('verdict').textContent = wrong.length
    ? `First wrong: ${title(wrong[0])}. Wrong in all: ${wrong.map(title).join(', ')}.`
    : 'With these numbers it makes no difference: nothing is wrong.'
}

// Gradient descent

function descend(count) {
  if (!state.history.length) state.history.push(right.loss)
  for (let i = 0; i < count; i++) {
    for (const [name, array] of Object.entries(state.params)) {
      const gradient = shown.grads[name]
      state.params[name] = array.map((entry, j) => (Array.isArray(entry) ? entry.map((w, k) => w - state.rate * gradient[j][k]) : entry - state.rate * gradient[j]))
    }
    compute()
    state.history.push(right.loss)
  }
  show()
}

function curve() {
  const losses = state.history.length ? state.history : [right.loss]
  const steps = losses.length - 1
  get('loss').textContent = `${steps} ${steps === 1 ? 'step' : 'steps'} taken: C = ${format(right.loss)}`
  get('loss').dataset.value = right.loss
  const finite = losses.filter(Number.isFinite)
  const [low, high] = [Math.min(0, ...finite), Math.max(...finite, 1e-300)]
  const [width, height, left, bottom] = [640, 200, 64, 30]
  const px = i => left + ((width - left - 10) * i) / Math.max(steps, 1)
  const py = loss => height - bottom - ((height - bottom - 12) * (loss - low)) / (high - low || 1)
  const svg = drawing('svg', { viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': `The loss over ${steps} steps, from ${format(losses[0])} to ${format(right.loss)}` })
  svg.append(drawing('path', { class: 'axis', fill: 'none', d: `M${left} 8V${height - bottom}H${width - 6}` }))
  for (const [text, x, y, anchor] of [[format(high), left - 6, py(high) + 4, 'end'], [format(low), left - 6, py(low) + 4, 'end'], ['steps', width - 10, height - 8, 'end'], [String(steps), px(steps), height - 16, 'middle'], ['C', left + 8, 16, 'start']]) {
    const label = drawing('text', { x, y, 'text-anchor': anchor })
    label.textContent = text
    if (text !== '0' || x !== px(0)) svg.append(label)
  }
  const points = losses.map((loss, i) => (Number.isFinite(loss) ? `${px(i).toFixed(1)},${py(loss).toFixed(1)}` : null)).filter(Boolean)
  svg.append(drawing('polyline', { class: 'curve', points: points.join(' ') }))
  svg.append(drawing('circle', { cx: px(steps), cy: Number.isFinite(right.loss) ? py(right.loss) : 0, r: 4, class: 'neuron' }))
  get('curve').replaceChildren(svg)
}

// Numbers that can be changed

function inputs() {
  const tables = [field('x', state.x, 'the inputs x'), field('y', state.y, 'the targets y')]
  for (const name of Object.keys(state.params)) tables.push(field(name, state.params[name], title(name)))
  get('inputs').replaceChildren(...tables)
}

function field(name, array, caption) {
  const rows = Array.isArray(array[0]) ? array : [array]
  const made = element('table')
  made.append(element('caption', {}, caption))
  rows.forEach((row, n) => {
    const line = element('tr')
    row.forEach((entry, j) => {
      const input = element('input', { type: 'number', step: 'any', value: entry, 'aria-label': `${name} ${n + 1},${j + 1}`, 'data-field': `${name}[${n + 1},${j + 1}]` })
      input.addEventListener('input', () => {
        const value = input.valueAsNumber
        const bad = !Number.isFinite(value)
        input.setAttribute('aria-invalid', String(bad))
        if (bad) return
        row[j] = value
        state.history = []
        compute()
        show(false)
      })
      line.append(element('td', {}, input))
    })
    made.append(line)
  })
  return element('div', {}, made)
}

// All together

function show(fields = true) {
  picture()
  present()
  chain()
  breakage()
  curve()
  get('chosen').value = state.chosen
  if (fields) inputs()
}

function go(position) {
  state.position = Math.max(1, Math.min(lesson.steps.length, position))
  picture()
  present()
}

for (const name of Object.keys(lesson.params).filter(name => name[0] === 'W')) {
  lesson.params[name].forEach((row, j) => row.forEach((_, k) => get('chosen').append(element('option', { value: `${name}[${j + 1},${k + 1}]` }, `${name}[${j + 1},${k + 1}]`))))
}
get('first').addEventListener('click', () => go(1))
get('back').addEventListener('click', () => go(state.position - 1))
get('forward').addEventListener('click', () => go(state.position + 1))
get('position').addEventListener('input', event => go(event.target.valueAsNumber))
get('sample')?.addEventListener('change', event => { state.sample = Number(event.target.value); show(false) })
get('chosen').addEventListener('change', event => { state.chosen = event.target.value; show(false) })
get('fault').addEventListener('change', event => { state.fault = event.target.value === '' ? null : Number(event.target.value); compute(); show(false) })
get('rate').addEventListener('input', event => {
  const rate = event.target.valueAsNumber
  event.target.setAttribute('aria-invalid', String(!Number.isFinite(rate)))
  if (Number.isFinite(rate)) state.rate = rate
})
get('descend').addEventListener('click', () => descend(1))
get('descend10').addEventListener('click', () => descend(10))
get('again').addEventListener('click', () => { Object.assign(state, fresh()); compute(); show() })
document.addEventListener('keydown', event => {
  if (event.target.closest('input, select') || event.altKey || event.ctrlKey || event.metaKey) return
  if (event.key === 'ArrowRight') go(state.position + 1)
  if (event.key === 'ArrowLeft') go(state.position - 1)
})

compute()
show()
