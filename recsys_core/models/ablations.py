"""Two time scales with one part taken away, to see what it is worth.

| ablation      | what is different                                                              |
|---------------|--------------------------------------------------------------------------------|
| none          | nothing                                                                        |
| one_rnn       | the one network that the two begin as answers everybody from their last K      |
|               | events; its second phase is on everybody too                                   |
| active_static | gamma stays 0: an active user is the embedding that all their events imply     |
|               | (EDGE, arXiv 2112.07768)                                                       |
| no_stage1     | item vectors begin at random, nobody is folded in, nothing is pulled back      |
| swap          | trained as ever; each network answers the other group from their last K events |
| learned_phi   | the free row of stage one instead of the fold-in: it was fitted on the very    |
|               | events that the active network is trained to predict, so that its fit leaks    |

Each request costs the same, and `one_rnn` has half the weights.
"""

from typing import Literal

Ablation = Literal["none", "one_rnn", "active_static", "no_stage1", "swap", "learned_phi"]

LEAK = (
    "learned_phi: in training the user vector was fitted on the events that are asked for, so the "
    "active network trusts it more than it deserves"
)
