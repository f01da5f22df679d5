"""The exact gradient of one optimisation batch, however it has to be cut up to fit the memory.

The loss (CCC) is a function of all predictions of the batch together, so the mean over micro-batches would be
another loss with another gradient. When the batch doesn't fit in one pass, or would be mostly padding, it takes two:

1. predict every micro-batch, the last one with a graph and the others without, and differentiate the loss of the
   whole batch by its predictions;
2. backpropagate the last one's slice of that derivative; then predict every other micro-batch again, with a graph, and
   backpropagate its slice.

Dropout masks and time masks are keyed by utterance (see `nn.dropout`), so both passes, and any other way of
cutting, see the same network. Several processes (see `ranks`) share the batch: each computes the examples dealt to it,
predictions are gathered before the loss and gradients summed after the last micro-batch.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from serfit.config.schema import ExperimentConfig
from serfit.errors import UserError, is_out_of_memory
from serfit.labels import SAMPLE_RATE
from serfit.nn.dropout import DropoutSeeds
from serfit.nn.losses import LossFunction
from serfit.nn.model import EmotionModel
from serfit.nn.passes import PASS_SECONDS, plan_passes
from serfit.training.batches import Example, collate
from serfit.training.features import Features
from serfit.training.memory import first_budget
from serfit.training.ranks import ALONE, Ranks, deal

Outcome = TypeVar("Outcome")
AGAIN = 1 / 3
"""Cost of a forward pass as a share of forward and backward: what every pass but one pays twice (see above)."""


@dataclass(slots=True)
class Executor:
    """Runs a model over examples within a memory budget.

    Attributes:
        model: the network.
        stage: the stage at which the examples' inputs enter it.
        device: where it computes.
        autocast: context under which forward passes run (mixed precision).
        budget: most padded entries (examples x longest) of one pass; None is no limit. Halved when memory runs out.
        ranks: the processes that share the work; all must be given the same examples and budget.
        notes: what happened to the budget since `take_notes` was last called, in sentences.
    """

    model: EmotionModel
    stage: int
    device: torch.device
    autocast: Callable[[], AbstractContextManager[object]]
    budget: int | None = None
    ranks: Ranks = ALONE
    notes: tuple[str, ...] = ()

    def take_notes(self) -> tuple[str, ...]:
        """Return the changes of the budget since the last call."""
        notes, self.notes = self.notes, ()
        return notes

    def gradients(self, examples: Sequence[Example], loss: LossFunction) -> tuple[float, torch.Tensor]:
        """Put the exact gradient of the loss of all examples into the model's parameters.

        The gradients are replaced, not added to. Repeats with smaller micro-batches when memory runs out.

        Returns:
            The loss, and the predictions [B, D] it was computed from, on the CPU in the order of the examples.

        Raises:
            UserError: when a single utterance doesn't fit.
        """
        self.model.train()
        return self._within_memory(examples, AGAIN, lambda plan: self._gradients(examples, plan, loss))

    def predict(self, examples: Sequence[Example]) -> torch.Tensor:
        """Predictions [B, D] without dropout, on the CPU in the order of the examples."""
        self.model.eval()

        def work(plan: list[list[int]]) -> torch.Tensor:
            return self.ranks.summed(self._agreed(lambda: self._predictions(examples, plan, noisy=False))).cpu()

        with torch.no_grad():
            return self._within_memory(examples, 0.0, work)

    def _within_memory(
        self, examples: Sequence[Example], again: float, work: Callable[[list[list[int]]], Outcome]
    ) -> Outcome:
        while True:
            plans = self._plans(examples, again)
            try:
                return work(plans[self.ranks.index])
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            self._halve(examples, [micro for plan in plans for micro in plan])

    def _plans(self, examples: Sequence[Example], again: float) -> list[list[list[int]]]:
        """The micro-batches of each process, as places among the examples."""
        lengths = self._lengths(examples)
        overhead = PASS_SECONDS.get(self.device.type, 0.0) * self.model.feature_shape(SAMPLE_RATE, self.stage)[0]

        def cut(share: list[int]) -> list[list[int]]:
            passes = plan_passes([lengths[index] for index in share], self.budget, overhead=overhead, again=again)
            return [[share[index] for index in micro] for micro in passes]

        return [cut(share) for share in deal(lengths, self.ranks.count)]

    def _lengths(self, examples: Sequence[Example]) -> list[int]:
        return [self.model.computed_entries(example.length, self.stage) for example in examples]

    def _agreed(self, work: Callable[[], Outcome]) -> Outcome:
        """Do this process's work; where memory ran out in one process, all raise, so that none waits for another."""
        trouble = None
        try:
            outcome = work()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            trouble = str(error)  # not the error itself, whose traceback would keep the tensors alive
        if self.ranks.any(trouble is not None):
            raise torch.OutOfMemoryError(trouble or "another process ran out of memory")
        return outcome

    def _halve(self, examples: Sequence[Example], plan: list[list[int]]) -> None:
        """Leave less for one pass than the largest that was tried, or say that it can't be less."""
        self.model.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        lengths = self._lengths(examples)
        shared = [len(micro) * max(lengths[index] for index in micro) for micro in plan if len(micro) > 1]
        if not shared and not self.model.encoder.gradient_checkpointing:
            self.model.encoder.gradient_checkpointing = True
            self.notes += (
                f"memory on {self.device} ran out with a single utterance: from here on activations are computed again "
                "in the backward pass (gradient checkpointing); slower, and the result doesn't change",
            )
            return
        if not shared:
            longest = max(examples, key=lambda example: example.length)
            raise UserError(
                f"memory on {self.device} runs out with the single utterance {longest.id}, even with gradient "
                "checkpointing; set data.loader.crop_seconds=12, or freeze more of the encoder "
                "(model.params.freeze_layers)"
            )
        self.budget = max(shared) // 2
        self.notes += (
            f"memory on {self.device} ran out: from here on the same optimisation batches are computed in smaller "
            "micro-batches; the result doesn't change",
        )

    def _gradients(
        self, examples: Sequence[Example], plan: list[list[int]], loss: LossFunction
    ) -> tuple[float, torch.Tensor]:
        self.model.zero_grad(set_to_none=True)
        targets = torch.stack([example.target for example in examples]).to(self.device)
        # The last micro-batch keeps its graph from the first pass to the second and is computed once, so a batch of one
        # micro-batch costs what plain backpropagation costs. It comes first in the second pass: its graph is freed
        # there before the next micro-batch builds one, and memory never holds two.
        held: list[torch.Tensor] = []

        def predicted() -> torch.Tensor:
            with torch.no_grad():
                values = self._predictions(examples, plan[:-1], noisy=True)
            for micro in plan[-1:]:
                held.append(self._forward(examples, micro, noisy=True))
                values[micro] = held[0].detach()
            return values

        def backpropagated() -> None:
            for micro in reversed(plan):
                again = held.pop() if held else self._forward(examples, micro, noisy=True)
                again.backward(slope[micro])  # type: ignore[no-untyped-call]

        # By the chain rule the gradient is a sum over micro-batches: d loss / d predictions, known for the whole batch
        # after this line, times d predictions / d weights, which can be had piece by piece and on any process. Each
        # process has 0 for the examples of the others, so the sum gathers all predictions.
        predictions = self.ranks.summed(self._agreed(predicted)).requires_grad_()
        value = loss(predictions, targets)
        (slope,) = torch.autograd.grad(value, predictions)
        self._agreed(backpropagated)
        self._sum_gradients()
        return float(value.detach()), predictions.detach().cpu()

    def _sum_gradients(self) -> None:
        """Add up the gradients of all processes in one flat buffer; what got none anywhere keeps none."""
        if self.ranks.count == 1:
            return
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        sizes = [parameter.numel() for parameter in parameters]
        flat = torch.zeros(sum(sizes) + len(parameters), dtype=parameters[0].dtype, device=self.device)
        *slices, arrived = torch.split(flat, [*sizes, len(parameters)])
        for index, (parameter, part) in enumerate(zip(parameters, slices, strict=True)):
            if parameter.grad is not None:
                part.copy_(parameter.grad.flatten())
                arrived[index] = 1
                parameter.grad = None
        self.ranks.summed(flat)
        for parameter, part, count in zip(parameters, slices, arrived.tolist(), strict=True):
            parameter.grad = part.view_as(parameter) if count else None

    def _predictions(self, examples: Sequence[Example], plan: list[list[int]], *, noisy: bool) -> torch.Tensor:
        """Predictions [B, D] of the examples in the plan, 0 for all others."""
        exact = next(self.model.parameters()).dtype == torch.float64
        values = torch.zeros(
            len(examples),
            len(examples[0].target),
            dtype=torch.float64 if exact else torch.float32,
            device=self.device,
        )
        for micro in plan:
            values[micro] = self._forward(examples, micro, noisy=noisy)
        return values

    def _forward(self, examples: Sequence[Example], micro: Sequence[int], *, noisy: bool) -> torch.Tensor:
        batch = collate([examples[index] for index in micro], self.device)
        inputs = batch.inputs.to(next(self.model.parameters()).dtype)
        with self.autocast():
            predictions: torch.Tensor = self.model(
                inputs,
                batch.lengths,
                start=self.stage,
                noise=DropoutSeeds(batch.noise_seeds) if noisy else None,
                time_mask=batch.time_mask if noisy else None,
            )
        return predictions if predictions.dtype == torch.float64 else predictions.float()


def build_executor(
    config: ExperimentConfig, model: EmotionModel, features: Features, device: torch.device, ranks: Ranks
) -> Executor:
    """Return what computes the optimisation batches of an experiment, within the memory of the process with least."""
    precision = features.precision
    budget = first_budget(model, features.stage, features.entries_per_second, device, config.train, half=precision.half)
    return Executor(model, features.stage, device, precision.autocast, ranks.least(budget), ranks)


def exactly(executor: Executor) -> Executor:
    """The same executor in float32, for predictions that are kept."""
    return replace(executor, autocast=nullcontext)
