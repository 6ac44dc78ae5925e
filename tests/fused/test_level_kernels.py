"""The kernels of training are compiled once, for what training passes to them."""

import numpy as np
import torch

from glow_bt.flows.level import GlowLevel
from glow_bt.fused.level_backward import backward
from glow_bt.fused.level_forward import forward
from glow_bt.fused.level_kernels import prepare


def test_training_needs_no_code_but_what_was_prepared():
    prepare(np.dtype("float64"))
    kernels = forward, backward
    before = [len(kernel.signatures) for kernel in kernels]
    for contexts, coupling in ((0, "affine"), (3, "additive")):
        level = GlowLevel(4, 2, 8, contexts, coupling=coupling).double().train()
        given = [torch.randn(9, width, dtype=torch.float64) for width in (4, contexts) if width]
        level(*given)  # sets the norms
        level(*given)[0].sum().backward()
    assert [len(kernel.signatures) for kernel in kernels] == before
