"""Features of images, computed once and kept on disk: every metric is taken from the same pass.

`extract_features` keeps the columns of an extractor's `FeatureBatch` in shards; `FeatureStore` reads them as tables for
`fidelity`.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from stablevelocity.data.shards import ShardSet, is_done, write_manifest, write_shard
from stablevelocity.errors import UserError
from stablevelocity.evaluation.classifier import FeatureBatch, load_classifier
from stablevelocity.evaluation.image_sets import ImageSet
from stablevelocity.files import sha256
from stablevelocity.progress import Progress
from stablevelocity.provenance import code_hash

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
INCEPTION_RELEASE = "release v0.2.0 of toshas/torch-fidelity"

BATCH = 64
"""Images per pass. Fixed, so that results do not depend on it: convolutions round differently per batch size."""
SHARD_ROWS = 4096


@runtime_checkable
class Extractor(Protocol):
    name: str
    identity: str
    """Hash of its weights: features of another identity are not comparable."""

    def __call__(self, images: UInt8[Tensor, "batch height width 3"], /) -> FeatureBatch: ...


class InceptionExtractor:
    """Inception-v3 of 2015 as ported from TensorFlow by torch-fidelity: the network behind published FIDs.

    pool is pool3 (2,048); spatial is what ADM's evaluator takes for sFID: the first 7 channels of the 1x1 branch of the
    third 17x17 block (`mixed_6/conv` in the TensorFlow graph, `Mixed_6d.branch1x1` here), flattened to 2,023; logits
    leave out the last layer's bias, as ADM's. The network resizes images to 299 px in TensorFlow 1's way.
    """

    name = "inception"

    def __init__(self, network: torch.nn.Module, identity: str):
        self.network, self.identity = network, identity
        self._map = torch.empty(0)
        network.get_submodule("Mixed_6d.branch1x1").register_forward_hook(self._keep)

    @classmethod
    def load(cls, weights: Path, device: str = "cpu") -> "InceptionExtractor":
        """Read the weights file. Raises UserError when it is absent or not the published one."""
        # Imported here: it takes longer than scoring a set of digits.
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        where = f"put {INCEPTION_FILE} ({INCEPTION_RELEASE}) there"
        if not weights.is_file():
            raise UserError(f"{weights}: no Inception weights; {where}")
        given = sha256(weights)
        if given != INCEPTION_SHA256:
            raise UserError(f"{weights}: SHA-256 {given[:16]}..., expected {INCEPTION_SHA256[:16]}...; {where}")
        # torch-fidelity reads the file as a pickle; the hash has made sure that it is the published one.
        network = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(weights)
        )
        return cls(network.to(device), f"inception:sha256:{given}")

    def _keep(self, module: torch.nn.Module, inputs: tuple, output: Tensor) -> None:
        self._map = output

    @torch.no_grad()
    def __call__(self, images: UInt8[Tensor, "batch height width 3"]) -> FeatureBatch:
        device = next(self.network.parameters()).device
        pool, logits = self.network(images.permute(0, 3, 1, 2).to(device))
        spatial = self._map[:, :7].permute(0, 2, 3, 1).flatten(1)
        return FeatureBatch(pool.cpu(), spatial.cpu(), logits.cpu())


EXTRACTORS: dict[str, Callable[[Path, str], Extractor]] = {
    "inception": InceptionExtractor.load,
    "digits": load_classifier,
}


def load_extractor(name: str, weights: Path | str, device: str | None = None) -> Extractor:
    """An extractor by its registered name, with the file or folder of its weights; on the GPU if there is one."""
    if name not in EXTRACTORS:
        raise UserError(f"feature extractor {name!r} given, expected one of {', '.join(EXTRACTORS)}")
    return EXTRACTORS[name](Path(weights), device or ("cuda" if torch.cuda.is_available() else "cpu"))


def extract_features(images: ImageSet, extractor: Extractor, manifest: Path) -> "FeatureStore":
    """Compute the features of all images, shard by shard beside `manifest`, which is written last.

    Shards that an earlier, stopped call has finished for the same images, weights and code are kept.
    """
    code = code_hash("stablevelocity.evaluation.extractors")
    info = {"extractor": extractor.identity, "source": images.identity, "code": code}
    shards = []
    progress = Progress(f"features {manifest.parent.name}", len(images), "images")
    for start in range(0, len(images), SHARD_ROWS):
        rows = min(SHARD_ROWS, len(images) - start)
        shard = manifest.parent / f"{manifest.stem}-{start // SHARD_ROWS:05d}.safetensors"
        if not is_done(shard, info):
            batches = []
            for batch in itertools.islice(images.batches(BATCH, start), math.ceil(rows / BATCH)):
                batches.append(extractor(torch.from_numpy(np.array(batch))))
                progress.update(len(batch))
            columns = zip(FeatureBatch._fields, zip(*batches, strict=True), strict=True)
            write_shard(shard, {name: torch.cat(parts).float().numpy() for name, parts in columns}, info)
        shards.append(shard)
    write_manifest(manifest, shards, **info, name=extractor.name)
    return FeatureStore(manifest)


class FeatureStore(ShardSet):
    """Features on disk, read as tables; `extractor` is the identity of their extractor."""

    @property
    def extractor(self) -> str:
        return self.manifest["extractor"]

    def column(self, name: str) -> "Column":
        return Column(self, name)


@dataclass(frozen=True)
class Column:
    """One column in file order, iterated in chunks again and again."""

    store: FeatureStore
    name: str
    chunk: int = 2048

    def __iter__(self) -> Iterator[Float[Tensor, "n d"]]:
        for start in range(0, len(self.store), self.chunk):
            rows = np.arange(start, min(start + self.chunk, len(self.store)))
            yield torch.from_numpy(self.store.rows(self.name, rows))

    def tensor(self) -> Float[Tensor, "n d"]:
        """All rows in memory."""
        return torch.cat(list(self))
