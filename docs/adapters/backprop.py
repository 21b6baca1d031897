"""Backpropagation by hand in plain Python, behind refimpl.process/1: refimpl conform -- python3 backprop.py"""

import json
import math
import sys


def sigmoid(z):
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


ACTIVATIONS = {  # name: (f(z), f'(z) from z, so that a saturated unit keeps its digits)
    "identity": (lambda z: z, lambda z: 1.0),
    "relu": (lambda z: max(z, 0.0), lambda z: float(z > 0)),
    "sigmoid": (sigmoid, lambda z: sigmoid(z) * sigmoid(-z)),
    "tanh": (math.tanh, lambda z: 4 * sigmoid(2 * z) * sigmoid(-2 * z)),
    "softplus": (lambda z: max(z, 0.0) + math.log1p(math.exp(-abs(z))), sigmoid),
}
LOSSES = {  # name: (loss of one output, its derivative by s)
    "squared_error": (lambda s, y: (s - y) * (s - y) / 2, lambda s, y: s - y),
    "binary_cross_entropy": (lambda s, y: ACTIVATIONS["softplus"][0](s) - y * s, lambda s, y: sigmoid(s) - y),
}


def rows(tensor):  # further axes are flattened
    n, data = tensor["shape"][0], tensor["data"]
    return [data[i * len(data) // n : (i + 1) * len(data) // n] for i in range(n)]


def evaluate(network, parameters, x, y):
    a, z, layers = [rows(x)], [], network["layers"]
    W = [rows(parameters[f"W{number}"]) for number in range(1, len(layers) + 1)]
    for number, (w, layer) in enumerate(zip(W, layers), start=1):  # z = a Wᵀ + b, a = f(z)
        b = parameters[f"b{number}"]["data"] if layer.get("bias", True) else [0.0] * len(w)
        z.append([[sum(v * u for v, u in zip(row, given)) + bj for row, bj in zip(w, b)] for given in a[-1]])
        a.append([[ACTIVATIONS[layer["activation"]][0](v) for v in row] for row in z[-1]])
    (loss, slope), share = LOSSES[network["loss"]], 1 / len(a[0]) if network["reduction"] == "mean" else 1.0
    pairs = [[(s, t) for s, t in zip(row, target)] for row, target in zip(a[-1], rows(y))]
    d, gradients = [[slope(s, t) * share for s, t in row] for row in pairs], {}  # ∂C/∂s
    for l in reversed(range(len(W))):
        f1 = ACTIVATIONS[layers[l]["activation"]][1]
        delta = [[v * f1(u) for v, u in zip(row, zs)] for row, zs in zip(d, z[l])]  # δ = ∂C/∂a ⊙ f'(z)
        dW = [sum(r[j] * x[k] for r, x in zip(delta, a[l])) for j in range(len(W[l])) for k in range(len(W[l][0]))]
        gradients[f"W{l + 1}"] = {"shape": [len(W[l]), len(W[l][0])], "data": dW}  # dW = δᵀ a
        if layers[l].get("bias", True):
            gradients[f"b{l + 1}"] = {"shape": [len(W[l])], "data": [sum(column) for column in zip(*delta)]}
        d = [[sum(v * w[k] for v, w in zip(row, W[l])) for k in range(len(W[l][0]))] for row in delta]  # ∂C/∂a = δ W
    return {"loss": sum(loss(s, t) for row in pairs for s, t in row) * share, "gradients": gradients}


for message in map(json.loads, sys.stdin):
    if message["type"] == "hello":
        answer = {"type": "hello", "format": "refimpl.process/1", "name": "backprop.py", "dtypes": ["float64"]}
        answer |= {"activations": list(ACTIVATIONS), "losses": list(LOSSES)}
    elif message["type"] == "evaluate":
        given = (message[key] for key in ("network", "parameters", "x", "y"))
        answer = {"type": "answer", "id": message["id"], **evaluate(*given)}
    else:
        break
    print(json.dumps(answer), flush=True)
