"""What is to be learnt beside labelled scans, looked at before anything slow is imported."""

import hashlib
from pathlib import Path

from segloc_eval.config import Beside
from segloc_synth.files import absolute
from segloc_synth.shards.format import ShardReader
from segloc_synth.sources.backgrounds import read_benign


def resolve_beside(mix: Path | None, share: float, paste: bool, benign: Path | None) -> Beside | None:
    """What --mix, --copy-paste and --benign ask for; click.ClickException where nothing fit lies there."""
    if mix is None and benign is None and not paste:
        return None
    build = ShardReader(mix).manifest["config_hash"] if mix else ""
    scans = read_benign(benign).fingerprint if benign else ""
    share = share if mix else 0.0
    digest = hashlib.sha256(f"{build} {share} {scans} {paste}".encode()).hexdigest()
    return Beside(str(absolute(mix)) if mix else "", share, str(absolute(benign)) if benign else "", digest, paste)
