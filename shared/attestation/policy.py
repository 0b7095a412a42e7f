"""What an operator accepts of a confidential machine."""

import msgspec

from shared.document import ReportShape


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Of one model at one provider."""

    allowed_tcb: tuple[str, ...] = ("UpToDate",)
    """Intel's statuses that pass, whatever advisories come with them."""
    demoted: tuple[str, ...] = ()
    """Deciding factors that only inform: `gpu_measurements` and no other."""
    report_seconds: float = 300.0
    """How old a report may be when a call under it begins."""
    compose_hashes: tuple[str, ...] = ()
    """Those that are known, 64 hex digits each; empty: no list is kept."""
    os_images: tuple[str, ...] = ()
    """Likewise, of MRTD ‖ RTMR0 ‖ RTMR1 ‖ RTMR2. What an image calls itself makes it no known one."""
    shapes: tuple[ReportShape, ...] = ()
    """Of the reports that pass; empty: any but those of resold nodes, who sign nothing."""
    tls_key_required: bool = False
    """Whether a report must attest the TLS key of its host: else a report without one is as good."""
    has_gpu: bool = True
    """Whether the model runs on GPUs: then a report without one fails."""
