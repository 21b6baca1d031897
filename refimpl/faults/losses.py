"""What a wrong loss has for a cause."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from refimpl.faults.catalogue import FAULTS
from refimpl.faults.findings import Cause, Causes
from refimpl.faults.fits.factors import loss_factor
from refimpl.faults.mistaken import WHOLE, Fault, Mistaken
from refimpl.faults.observed import Observed
from refimpl.faults.prediction import ForwardPass, Reader, Recursion

FORWARD = ("other_gelu", "activation_not_applied", "bias_not_added", "leaky_slope_fixed", "leaky_slope_wrong_side")
ALONE = "in the loss alone"
CLEAR = 0.01  # the share of a difference that its tolerance may have


def loss_explanations(case: Observed, known: bool) -> Iterator[Causes]:
    """What a wrong loss has for a cause. `known`: whether what is wrong with the gradients is."""
    recursion, reader = Recursion(case.y), Reader(case.arithmetic, case.numbers)
    before = recursion.forward(case.spec, Mistaken.right(case.spec, case.y).equations)
    loss = case.loss_number
    truth = float(case.judge.truth.loss.mid)

    def explained(fault: Fault, layers: Sequence[int], forward: ForwardPass | None, reader: Reader) -> bool:
        mistaken = Mistaken.right(case.spec, case.y)
        for layer in layers:
            fault.plant(mistaken, layer, None)
        forward = forward or recursion.forward(mistaken.spec, mistaken.equations)
        predicted = reader(recursion.cost(mistaken.spec, forward, mistaken.equations))
        return bool(abs(loss - predicted.mid) <= predicted.err <= CLEAR * abs(loss - truth))

    for fault in FAULTS.values():
        for layer in fault.where(case.spec, case.n) if fault.on_loss else ():
            if explained(fault, [layer], before, reader):
                yield (Cause(fault, layer),)
    yield from loss_factor(case)
    if not case.wrong:
        yield from _wrong_forward_pass(case, explained)
    # NaN may have any reason
    lost = (fault for fault, own in case.cancelling if fault.on_loss and explained(fault, [WHOLE], None, own))
    infinite = (fault for fault in case.formulas if known and fault.on_loss and case.run(fault)[0] == loss)
    for fault in {fault.name: fault for fault in (infinite if math.isinf(loss) else lost)}.values():
        yield (Cause(fault, WHOLE),)


def _wrong_forward_pass(case: Observed, explained: Callable[..., bool]) -> Iterator[Causes]:
    """What is wrong about the forward pass of the loss alone: the gradients are right."""
    reader = Reader(case.arithmetic, case.numbers)
    for fault in map(FAULTS.__getitem__, FORWARD):
        layers = list(fault.where(case.spec, case.n))
        for chosen in [*([layer] for layer in layers), *([layers] if len(layers) > 1 else [])]:
            if explained(fault, chosen, None, reader):
                yield tuple(Cause(fault, layer, readings=(ALONE,)) for layer in chosen)
