"""The hierarchical recurrent network: one unit reads events, another whole sessions.

    event level      h_k = GRU_event(x_k, h_(k-1))
    session level    g_n = GRU_session(h of the last event of session n, g_(n-1))
                     h before the first event of session n + 1 = tanh(W g_n + b)

This is the reference that HRNN-meta is compared with (Ma et al., KDD 2020), after Quadrana et al.
(RecSys 2017). Its state is [g ; h], side by side. A flag for each step says whether it opens a
session, and one behind the last step whether what is asked for there does:

    step               0      1      2      3      4      request      PAD steps come last
    session_start      no     no     no     yes    no     yes
    re-run                           x                x

Before a step that opens a session is read, the session behind it is taken up into g, and h begins
anew. The request moves no state: it may be asked again, with another flag, after the next event.

An output is what the next item is predicted from. After the last event of a session that is h,
which knows nothing of g_n. With `rerun`, the change of HRNN-meta, the event is read once more, from
the state that the new session begins with, and its first item is predicted from

    GRU_event(x_k, tanh(W g_n + b))

which no later step reads: `rerun` changes the outputs before a session, and nothing else.

A learned start before all events, where there is one, is a step like any other: where the first
event opens a session, the start was a session by itself.
"""

import torch
from torch import Tensor, nn


class Hgru(nn.Module):
    """Gated recurrent units on two levels, from width W to W."""

    def __init__(self, width: int, *, rerun: bool, max_length: int) -> None:
        """`max_length` is the longest sequence of an exported graph, whose steps are unrolled."""
        super().__init__()
        self.state_size = 2 * width
        self.rerun = rerun
        self._max_length = max_length
        self.event = nn.GRUCell(width, width)
        self.session = nn.GRUCell(width, width)
        self.begin = nn.Linear(width, width)

    def forward(self, inputs: Tensor, initial: Tensor, session_start: Tensor) -> Tensor:
        """Outputs after each step: (B, T, W), (B, S) and flags (B, T + 1) to (B, T, W).

        A row's last flag is the one behind its last step that is not PAD: the request's.
        """
        if torch.compiler.is_exporting():
            return self._unrolled(inputs, initial, session_start)
        return self._run(inputs, initial, session_start)

    def step(
        self, inputs: Tensor, state: Tensor, session_start: Tensor, request_start: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One step: (B, W), (B, S) and flags (B,) to the output (B, W) and the state (B, S).

        `session_start` is the step's flag, `request_start` that of what is asked for after it, on
        which the output depends and the state does not.
        """
        # without branches, so that a graph of one step can be exported
        read = self._read(inputs)  # (B, 3 W)
        session, event = state.chunk(2, dim=-1)  # (B, W) twice
        after, first = self._end_session(session, event)
        opens = session_start.unsqueeze(1)  # (B, 1)
        session = torch.where(opens, after, session)
        output = event = self._event(read, torch.where(opens, first, event))
        if self.rerun:
            again = self._event(read, self._end_session(session, event)[1])
            output = torch.where(request_start.unsqueeze(1), again, event)
        return output, torch.cat([session, event], dim=-1)

    def _run(self, inputs: Tensor, initial: Tensor, session_start: Tensor) -> Tensor:
        """Outputs (B, T, W).

        Only the rows that open a session pay for the session level. Steps are one after the other,
        so all that does not wait for a state is worked out for all steps at once.
        """
        session, event = initial.chunk(2, dim=-1)  # (B, W) twice
        read = self._read(inputs.transpose(0, 1))  # (T, B, 3 W)
        step, row = session_start.T.nonzero(as_tuple=True)  # (O,) twice
        opened = torch.bincount(step, minlength=session_start.shape[1]).tolist()
        rows = torch.split(row, opened)
        begun, events = [], []
        for gates, here in zip(read.unbind(), rows[:-1], strict=True):
            if len(here):
                after, first = self._end_session(session[here], event[here])  # (O', W) twice
                session = session.index_copy(0, here, after)
                event = event.index_copy(0, here, first)
                begun.append(first)
            event = self._event(gates, event)
            events.append(event)
        outputs = torch.stack(events, dim=1)  # (B, T, W)
        if self.rerun:
            begun.append(self._end_session(session[rows[-1]], event[rows[-1]])[1])
            # before a session that opens with the first step there is nothing to be read again
            row, before = row[opened[0] :], step[opened[0] :] - 1  # (O'',) twice
            again = self._event(read[before, row], torch.cat(begun)[opened[0] :])  # (O'', W)
            outputs = outputs.index_put((row, before), again)
        return outputs

    def _read(self, inputs: Tensor) -> Tensor:
        """What the event level makes of inputs alone: (..., W) to (..., 3 W)."""
        return nn.functional.linear(inputs, self.event.weight_ih, self.event.bias_ih)

    def _event(self, read: Tensor, event: Tensor) -> Tensor:
        """h after a step: what was read (N, 3 W) and h before it (N, W). (N, W)"""
        kept = nn.functional.linear(event, self.event.weight_hh, self.event.bias_hh)  # (N, 3 W)
        width = event.shape[-1]
        gates = torch.sigmoid(read[:, : 2 * width] + kept[:, : 2 * width])  # (N, 2 W)
        reset, update = gates.chunk(2, dim=-1)  # (N, W) twice
        new = torch.tanh(torch.addcmul(read[:, 2 * width :], reset, kept[:, 2 * width :]))
        return torch.lerp(new, event, update)

    def _end_session(self, session: Tensor, event: Tensor) -> tuple[Tensor, Tensor]:
        """g and h behind a session, of both at its last step. (N, W) twice to (N, W) twice"""
        after = self.session(event, session)
        return after, torch.tanh(self.begin(after))

    def _unrolled(self, inputs: Tensor, initial: Tensor, session_start: Tensor) -> Tensor:
        """`forward` as a graph without branches, for any T up to L, `max_length`. (B, T, W)

        Every step works out the end of a session for every row, and takes it where there is one.
        """
        length, most = inputs.shape[1], self._max_length
        # of a number of steps that depends on T the exporter would make a constant at T = most
        read = nn.functional.pad(self._read(inputs), (0, 0, 0, most))  # (B, T + L, 3 W)
        flags = nn.functional.pad(session_start.to(inputs.dtype), (0, most)) > 0  # (B, T + L + 1)
        session, event = initial.chunk(2, dim=-1)  # (B, W) twice
        after, first = self._end_session(session, event)  # (B, W) twice
        outputs = []
        for step in range(most):
            opens, asked = flags[:, step, None], flags[:, step + 1, None]  # (B, 1) twice
            session = torch.where(opens, after, session)
            event = self._event(read[:, step], torch.where(opens, first, event))
            after, first = self._end_session(session, event)
            output = event
            if self.rerun:
                output = torch.where(asked, self._event(read[:, step], first), event)
            outputs.append(output)
        return torch.stack(outputs, dim=1)[:, :length]
