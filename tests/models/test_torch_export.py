"""torch.export of the consistency function: the same numbers, at a fixed and at any batch size."""

import pytest
import torch

import ect
from tests.models.test_diffusers_pipeline import EDM, NETWORK, saved

SMALL = NETWORK | {"multipliers": [1]}
COSINE = {"process": "vp_cosine", "parameterization": "velocity", "c_noise": "time"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "meaning, network, sizes",
    [(COSINE, SMALL, (4,)), (EDM, SMALL | {"classes": 3}, (1, 4, 7))],
    ids=["fixed", "dynamic"],
)
def test_the_exported_function_is_f(meaning, network, sizes, tmp_path):
    f = ect.load(saved(tmp_path / "model.safetensors", meaning, network, 1)).module()

    def inputs(size):
        generator = torch.Generator().manual_seed(size)
        x_t, t = (torch.rand(size, *shape, generator=generator) for shape in ((1, 8, 8), ()))
        return (x_t, t, torch.arange(size) % 3) if "classes" in network else (x_t, t)

    batch = torch.export.Dim("batch")
    dynamic = [{0: batch} for _ in inputs(4)] if len(sizes) > 1 else None
    exported = torch.export.export(f, inputs(4), dynamic_shapes=dynamic).module()
    for size in sizes:
        with torch.no_grad():
            wanted = f(*inputs(size))
        torch.testing.assert_close(exported(*inputs(size)), wanted, rtol=1e-5, atol=1e-6)
        assert wanted.std() > 0
