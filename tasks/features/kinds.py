"""All kinds of extractors, and how one is read."""

from typing import Annotated

from pydantic import SerializeAsAny

from tasks.features.backbone import BackboneSpec
from tasks.features.base import ExtractorBase
from tasks.features.cooccurrence import CooccurrenceSpec
from tasks.features.history import HistorySpec
from tasks.features.inception import InceptionSpec
from tasks.features.probe import ProbeSpec
from tasks.features.spectrum import SpectrumSpec
from tasks.features.vgg16 import Vgg16Spec
from tasks.spec.base import of_kind

KINDS: dict[str, type[ExtractorBase]] = {
    "vgg16": Vgg16Spec,
    "probe": ProbeSpec,
    "inception": InceptionSpec,
    "history": HistorySpec,
    "backbone": BackboneSpec,
    "cooccurrence": CooccurrenceSpec,
    "spectrum": SpectrumSpec,
}


ExtractorSpec = Annotated[SerializeAsAny[ExtractorBase], of_kind(KINDS, "extractor")]
