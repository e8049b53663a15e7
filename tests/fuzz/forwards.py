"""Random forwards as text: arithmetic, rows, reductions, layout, products, gathers, choices, casts, several results.

A step takes tensors that are there, so that results are used more than once; shapes are followed by running torch itself on
empty-handed meta tensors, so that every drawn forward is one that torch takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from hypothesis import strategies as st

from tests.codegen.random_forwards import RandomForward

if TYPE_CHECKING:
    from collections.abc import Callable

UNARY = (
    "{0}.tanh()", "{0}.sigmoid()", "{0}.sin()", "{0}.cos()", "-{0}", "{0} * 0.5 - 1", "3 - {0}", "{0} ** 2", "{0} ** 3", "{0}.square()",
    "({0} * 0.3).exp()", "{0}.abs()", "({0} ** 2 + 0.5).log()", "({0} ** 2 + 0.5).sqrt()", "({0} ** 2 + 0.5).rsqrt()", "({0}.abs() + 0.1) ** 1.5",
    "2 ** {0}.tanh()", "1 / (1.5 + {0}.sin())", "{0}.relu()", "F.gelu({0})", "F.silu({0})", "F.softplus({0})", "F.elu({0})", "F.leaky_relu({0}, 0.1)",
    "{0}.clamp(-0.7, 0.8)", "{0}.clamp(min=-0.2)", "torch.where({0} > 0.1, {0}, {0} * 0.1)", "({0} > 0.3) * {0}", "{0} * ({0} < 0.2).to({0}.dtype)",
    "{0}.erf()", "{0}.atan()", "torch.log1p({0} ** 2)", "torch.expm1({0} * 0.3)", "{0}.detach() * {0}", "torch.zeros_like({0}) + {0}",
    "{0}.masked_fill({0} > 0.9, 0.0)", "F.logsigmoid({0})", "F.hardtanh({0})", "{0}.float().double()", "F.mish({0})", "torch.sinh({0} * 0.5)",
    "F.hardswish({0})", "F.hardsigmoid({0})", "F.celu({0})", "F.selu({0})", "torch.special.ndtr({0})", "{0}.sgn() * {0}", "F.softsign({0})",
    "torch.logit({0}.sigmoid())", "torch.exp2({0})", "{0}.frac()", "{0}.sum() / {0}.shape[0] - {0}", "{0} / {0}.numel()", "F.tanhshrink({0})",
)  # fmt: skip
ROWWISE = (
    "{0}.softmax({d})", "{0}.log_softmax({d})", "{0} - {0}.mean({d}, keepdim=True)", "{0} / (1 + {0}.square().sum({d}, keepdim=True)).sqrt()",
    "{0}.cumsum({d})", "{0}.flip({d})", "{0}.roll(1, {d})", "{0} - {0}.logsumexp({d}, keepdim=True)", "{0} - {0}.amax({d}, keepdim=True)",
    "{0} / ({0}.abs().sum({d}, keepdim=True) + 1)", "torch.cat([{0}, {0} * 2], {d})", "torch.stack([{0}, {0}.tanh()], {d})",
    "({0} - {0}.mean({d}, keepdim=True)) * ({0}.var({d}, keepdim=True, correction=0) + 1e-2).rsqrt()", "F.normalize({0}, dim={d})",
    "{0}.sort({d}).values", "{0}.exp() / {0}.exp().sum({d}, keepdim=True)", "F.layer_norm({0}, {0}.shape[-1:])", "{0}.cumsum({d}).tanh()",
    "{0}.logcumsumexp({d})", "{0}.cummax({d}).values", "F.softmin({0}, {d})", "{0}.diff(dim={d})", "F.rms_norm({0}, {0}.shape[-1:])", "{0}.topk(1, {d}).values",
    "{0} * ({0}.std({d}, keepdim=True, correction=0) + 0.1)", "torch.quantile({0}, 0.3, {d}, keepdim=True) + {0}", "{0}.cumprod({d})",
    "{0}.tanh().argmax({d}, keepdim=True) * {0}",
)  # fmt: skip
REDUCTIONS = (
    "{0}.sum({d})", "{0}.mean({d}, keepdim=True)", "{0}.amax({d})", "{0}.amin({d}, keepdim=True)", "{0}.square().sum({d}, keepdim=True)",
    "{0}.logsumexp({d})", "{0}.var({d}, correction=0)", "{0}.max({d}).values", "({0} ** 2 + 0.1).sum({d}).sqrt()", "{0}.select({d}, 0)",
    "{0}.prod({d})", "{0}.norm(dim={d})", "{0}.sum()", "{0}.mean()", "{0}.select({d}, -1)", "{0}.median({d}).values", "{0}.min({d}).values",
    "{0}.square().mean().sqrt()", "{0}.norm(p=3, dim={d})", "{0}.abs().amax()", "torch.trapezoid({0}, dim={d})", "{0}.nansum({d})",
)  # fmt: skip
BINARY = (
    "{0} * {1}", "{0} + {1}", "{0} - 0.5 * {1}", "{0} / (1.5 + {1}.tanh())", "torch.maximum({0}, {1})", "torch.minimum({0}, {1})",
    "torch.where({0} > {1}, {0}, 2 * {1})", "torch.addcmul({0}, {0}, {1}, value=0.3)", "{0}.lerp({1}, 0.3)", "({0} - {1}) ** 2",
    "torch.hypot({0}, {1} + 3)", "F.smooth_l1_loss(*torch.broadcast_tensors({0}, {1}))", "F.mse_loss(*torch.broadcast_tensors({0}, {1}), reduction='sum')",
    "torch.atan2({0}, {1} ** 2 + 1)", "F.binary_cross_entropy_with_logits(*torch.broadcast_tensors({0}, {1}.sigmoid()))", "torch.logaddexp({0}, {1})",
    "F.huber_loss(*torch.broadcast_tensors({0}, {1}))", "F.cosine_similarity({0}, {1}, dim=0)", "F.pairwise_distance({0}, {1})",
    "F.l1_loss(*torch.broadcast_tensors({0}, {1}))",
    "F.gaussian_nll_loss(*torch.broadcast_tensors({0}, {1}, {1} ** 2 + 0.1))", "torch.fmod({0}, {1}.abs() + 1.3)",
    "F.kl_div({0}.log_softmax(-1), {1}.softmax(-1), reduction='sum')",
    "torch.xlogy({0}, {1} ** 2 + 0.2)", "{0}.copysign({1})", "torch.special.xlog1py({0}, {1} ** 2)", "torch.cat([{0}, {1}], -1)", "torch.stack([{0}, {1}])",
)  # fmt: skip
LAYOUT = (
    "{0}.mT", "{0}.reshape(-1)", "{0}.unsqueeze(1)", "{0}.unsqueeze(0)", "{0}[..., -1]", "{0}[..., ::2]", "{0}[:1]", "{0}[1:]", "{0}.transpose(0, -1)",
    "{0}.flatten()", "{0}.squeeze()", "{0}[None]", "{0}.expand(2, *{0}.shape)", "{0}.repeat(2, *[1] * {0}.dim())", "{0}.movedim(0, -1)", "{0}.chunk(2, -1)[0]",
    "{0}.tril()", "{0}.triu(1)", "F.pad({0}, (1, 0))", "{0}.diagonal()", "{0}.split(1, 0)[0]", "{0}.unbind(0)[0]", "{0}.reshape({0}.shape[::-1])",
    "torch.einsum('...i->i', {0})", "F.pad({0}, (0, 2), value=1.0)", "{0}.unfold(-1, 1, 1)", "{0}.narrow(0, 0, 1)", "{0}.view({0}.shape[0], -1)",
    "{0}.swapaxes(0, -1)", "{0}.rot90()", "{0}.tile((2,))", "F.pad({0}, (1, 1), mode='reflect')", "{0}.unflatten(-1, (-1, 1))",
    "{0}.repeat_interleave(2, 0)", "{0}.diag_embed()",
    "F.avg_pool1d({0}[None], 2, ceil_mode=True, count_include_pad=False)", "F.max_pool1d({0}[None], 2)",
    "F.interpolate({0}[None], scale_factor=1.5, mode='linear')", "{0}.fliplr()",
)  # fmt: skip
PRODUCTS = (
    "{0} @ {1}", "torch.einsum('ij,kj->ik', {0}, {1})", "torch.einsum('ij,ij->i', {0}, {1})", "torch.outer({0}.flatten(), {1}.flatten())",
    "{0} @ {1}.mT", "F.linear({0}, {1})", "F.linear({0}, {1}).relu() @ {1}", "({0} @ {1}.mT).softmax(-1) @ {1}", "torch.tensordot({0}, {1}, 1)", "{0}.mT @ {1}",
    "torch.dot({0}.flatten(), {1}.flatten())", "torch.einsum('ij,jk->ki', {0}, {1})", "F.scaled_dot_product_attention({0}, {1}, {1})", "torch.kron({0}, {1})",
    "torch.cdist({0}, {1})", "torch.einsum('...ij,...kj->...ik', {0}, {1})", "F.conv1d({0}[None], {1}[None], padding=1)",
    "F.conv1d({0}[:, None], {1}[:, None, :2])", "torch.inner({0}, {1})", "({0} * {1}).sum()", "({0} * {1}).mean(-1, keepdim=True)",
)  # fmt: skip
GATHERS = (
    "{0}[i]", "{0}.index_select(0, i)", "{0}[i].tanh()", "{0}[torch.arange({0}.shape[0]) // 2]", "F.cross_entropy({0}[i], i)",
    "torch.zeros_like({0}).index_add(0, i, {0}[i])", "{0}.gather(0, i.reshape(-1, *[1] * ({0}.dim() - 1)).expand(-1, *{0}.shape[1:]))",
    "F.embedding(i, {0})", "F.nll_loss({0}[i].log_softmax(-1), i, reduction='none')", "{0} * (torch.arange({0}.shape[-1]) > 0)",
    "{0}.log_softmax(-1)[torch.arange(i.shape[0]), i]", "{0}[:, i]", "{0}.index_fill(0, i, 0.5)", "{0}.take(i)", "{0} * (i[0] + 1)", "{0} + i.sum()",
    "{0} / (i.double().mean() + 1)", "{0}[..., i, :]", "{0}[None, i]",
    "{0}[i - 1]", "{0}[:, -i]", "{0}.index_put((i - 1,), {0}[i] * 2, accumulate=True)",
    "F.one_hot(i, 5).double() * {0}.sum()", "torch.take_along_dim({0}, {0}.argsort(-1), -1)", "{0}[i].index_add(0, i * 0, {0}[i])",
    "torch.where(i > 0, {0}.sum(), {0}.mean())",
    "F.multi_margin_loss({0}[i], i)", "{0}[i % {0}.shape[0], ...]", "F.cross_entropy({0}[i], i, label_smoothing=0.2, reduction='none')",
)  # fmt: skip
KINDS = {
    "unary": UNARY, "binary": BINARY, "rowwise": ROWWISE, "reduce": REDUCTIONS, "layout": LAYOUT, "product": PRODUCTS, "gather": GATHERS,
}  # fmt: skip
EXAMPLE = 7
"""The seed of the inputs that a forward is drawn for: its indices are within the sizes of these."""
LARGEST = 200
"""Elements of a tensor, so that one forward takes milliseconds."""


def result_of(text: str, tensors: dict[str, Any]) -> Any:
    """What torch makes of a line; None where it refuses, or where nothing or too much comes out."""
    try:
        with torch.no_grad():
            space = {"torch": torch, "F": torch.nn.functional, **tensors}
            exec(f"made = {text}", space)
            made = space["made"]
    except (RuntimeError, IndexError, ValueError, TypeError):
        return None
    usable = isinstance(made, torch.Tensor) and made.dtype == torch.float64 and 0 < made.numel() <= LARGEST
    return made if usable and bool(made.isfinite().all()) and float(made.abs().max()) < 1e4 else None


@st.composite
def forwards(draw: Callable[[Any], Any], steps: int = 6) -> RandomForward:
    """A forward of three or four inputs and up to `steps` lines, with one to three results."""
    n, m, k = draw(st.lists(st.integers(1, 4), min_size=3, max_size=3))
    inputs: dict[str, tuple[int, ...]] = {
        "x": draw(st.sampled_from([(n, m), (n, m), (2, n, m), (n,)])),
        "w": (m, k),
        "v": draw(st.sampled_from([(m,), (n, 1), (1, m), (n, m), ()])),
        "i": (draw(st.integers(1, 4)),),
        "s": (),
    }
    example = RandomForward("", tuple(inputs.items())).tensors(torch.float64, EXAMPLE)
    tensors = dict(zip(inputs, example, strict=True))
    lines: list[str] = []
    made: list[str] = []
    for number in range(draw(st.integers(1, steps))):
        names = [name for name in tensors if name != "i"]
        a = draw(st.sampled_from(names[-3:])) if draw(st.booleans()) else draw(st.sampled_from(names))
        b = draw(st.sampled_from(names))
        dims = max(tensors[a].dim(), 1)
        text = draw(st.sampled_from(KINDS[draw(st.sampled_from(list(KINDS)))])).format(
            a, b, d=draw(st.integers(0, dims - 1))
        )
        result = result_of(text, tensors)
        if result is None:
            text, result = f"{a}.tanh()", tensors[a].tanh()
        name = f"t{number}"
        lines.append(f"{name} = {text}")
        tensors[name] = result
        made.append(name)
    results = [made[-1], *draw(st.lists(st.sampled_from(made), max_size=2, unique=True))]
    results = list(dict.fromkeys(results))
    body = "".join(f"    {line}\n" for line in lines)
    source = f"def forward({', '.join(inputs)}):\n{body}    return {', '.join(results)}\n"
    return RandomForward(source, tuple(inputs.items()))
