"""Where the user's forward is now, and the message for an op outside of the table."""

from __future__ import annotations

import difflib
import linecache
from functools import lru_cache
from pathlib import Path

from engine.graph import Source
from engine.naming import user_frame
from engine.ops import TABLE

DEVICES = frozenset(("cuda", "xpu", "mps", "ipu", "pin_memory"))
"""Methods that move a tensor elsewhere."""

SPECTRUM = (
    "eigenvalues and singular values have no rows. What they are often taken for has: torch.logdet, torch.linalg.inv, "
    "torch.linalg.solve, torch.linalg.cholesky (which whitens, too), the Frobenius norm. Or pass what they give as an input."
)
SQUARES = (
    "Solve the normal equations, torch.linalg.solve(A.mT @ A, A.mT @ B), or with a penalty on the diagonal of A.mT @ A."
)
COMPLEX = "complex numbers are outside of what is derived. Transform outside of the forward, or multiply with a matrix of cosines."
REMEDIES = {
    **dict.fromkeys(
        (
            "linalg_eigh", "linalg_eigvalsh", "linalg_eig", "linalg_eigvals", "linalg_svd", "linalg_svdvals", "svd", "lobpcg",
            "nuclear_norm", "linalg_cond", "linalg_matrix_rank", "pca_lowrank", "svd_lowrank",
        ),
        SPECTRUM,
    ),
    **dict.fromkeys(("linalg_lstsq", "linalg_pinv", "pinverse"), SQUARES),
    **dict.fromkeys(
        (
            "linalg_qr", "qr", "linalg_lu", "lu", "linalg_lu_factor", "linalg_lu_solve", "lu_solve", "linalg_ldl_factor",
            "linalg_ldl_solve", "linalg_householder_product",
        ),
        "of the factorizations Cholesky's has a row: torch.linalg.cholesky(A.mT @ A) is the R of A = Q R, transposed, up to signs. "
        "A system is solved by torch.linalg.solve, without factors.",
    ),
    **dict.fromkeys(
        ("linalg_inv_ex", "linalg_cholesky_ex", "linalg_solve_ex"),
        "Leave out `_ex`: the one without it raises where there is no result.",
    ),
    **dict.fromkeys(
        ("linalg_matrix_exp", "matrix_exp"), "Write out as many terms of its series as you need: x @ x / 2 is the second one."
    ),
    **dict.fromkeys(
        ("nonzero", "unique", "_unique2", "unique_consecutive", "argwhere"),
        "how large its result is depends on values, and a trace has none. Use torch.where(mask, x, 0).",
    ),
    "_is_all_true": "validate_args=True looks into values, and a trace has none. Leave it out: emitted code validates nothing.",
    **dict.fromkeys(
        ("_standard_gamma", "_sample_dirichlet", "_Dirichlet"),
        "what is drawn by rejection has no formula to differentiate. Draw outside of the forward and pass it as an input, or "
        "from a distribution that transforms its noise: Normal, LogNormal, Kumaraswamy, Weibull.",
    ),
    "grad": "a gradient inside of a forward is not traced. Write it out, or generate code for what it is of: generate(..., order=2).",
    **dict.fromkeys(
        ("tensor",), "it copies values, and a trace has none. Use torch.stack for tensors of the forward, x.detach() for a copy."
    ),
    **dict.fromkeys(("stft", "istft", "view_as_complex", "complex", "polar"), COMPLEX),
}  # fmt: skip
"""What to do instead of ops that are not in the table."""


def here() -> Source | None:
    """Where the user's forward is now."""
    frame = user_frame()
    if frame is None:
        return None
    file, line = frame.f_code.co_filename, frame.f_lineno
    return Source(_shown(file, Path.cwd()), line, linecache.getline(file, line).strip())


@lru_cache(maxsize=64)
def _shown(file: str, folder: Path) -> str:
    """A path as messages name it: relative to the working folder where it is inside."""
    path = Path(file)
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else path.name


def located() -> str:
    """` at file:line` for messages."""
    source = here()
    return str(source) if source else "the forward"


def device(name: str) -> str:
    """The message for a tensor that is moved elsewhere."""
    source = here()
    text = f"\n  {source.text}" if source and source.text else ""
    return f".{name}() at {located()}: leave devices out. Emitted code runs on the device that its inputs are on.{text}"


def drawn_apart(name: str) -> str:
    """The message for random numbers of a generator that the forward has for itself."""
    return (
        f"{name}(generator=...) at {located()}: emitted code draws from torch's own generator. Leave the generator out and call "
        "torch.manual_seed before the forward, or pass what is drawn as an input."
    )


def transformed(name: str) -> str:
    """The message for a tensor without values that the trace does not know."""
    return (
        f"{name!r} at {located()} is called inside of torch.func or torch.vmap, through which a trace does not see. Write a batch "
        "with broadcasting, torch.einsum or torch.stack, and put torch.func around the emitted function."
    )


def unknown_op(name: str) -> str:
    """The message for an op outside the table: op, place, nearest supported op, remedy."""
    names = sorted({r.name for r in TABLE.values()})
    close = difflib.get_close_matches(name.strip("_").removeprefix("special_"), names, n=1, cutoff=0.6)
    nearest = f" The nearest supported op is {close[0]!r}." if close and close[0] != name else ""
    source = here()
    text = f"\n  {source.text}" if source and source.text else ""
    if name in DEVICES:
        return device(name)
    remedy = COMPLEX if name.startswith("fft_") else REMEDIES.get(name)
    if remedy is not None:
        return f"op {name!r} is not in the op table, at {located()}: {remedy}{text}"
    return (
        f"op {name!r} is not in the op table, at {located()}.{nearest} "
        f"Write it with supported ops, or add a row with engine.op(...) / engine.elementwise(...).{text}"
    )
