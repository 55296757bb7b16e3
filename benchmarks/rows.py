"""The rows of the table. Pictures and features are made anew for every size; a row never extrapolates."""

from __future__ import annotations

from functools import partial

from benchmarks.brought import onnx_case
from benchmarks.embedding import exact_case
from benchmarks.feature_store import reading_case, writing_case
from benchmarks.frechet import frechet_case
from benchmarks.harness import Row, reported
from benchmarks.memory import memory_case
from benchmarks.orchestration import AGAIN_S, sample_case
from benchmarks.planning import assigning_case, plan_case
from benchmarks.pools import LOST_PER_CENT, TO_CRITICAL_PATH, WORK_LOST_S, killed_case, lanes_case, sample_on_pools_case
from benchmarks.support_vectors import svm_case
from benchmarks.views import fair_case, raw_case, scaled_case

_views = partial(Row, plainly="Pillow, one decode per view", libraries=("pillow", "simplejpeg", "numpy"))
_feature_store = partial(
    Row,
    plainly="pyarrow's defaults for a list column",
    unit="dimensions",
    sizes=(512, 1_024, 2_048, 4_096),
    libraries=("pyarrow", "polars", "numpy"),
)
_memory = partial(
    Row,
    plainly="holding all decoded pictures",
    unit="pictures",
    at_most=1.5e9,
    meter=reported,
    costs="bytes",
    threads=(1,),
    pairs=0,
)
# Where there is nothing to compare with.
_alone = partial(Row, plainly="", meter=reported, threads=(1,), pairs=1)


ROWS = {
    row.name: row
    for row in (
        _views(
            name="views",
            what="all 12 views of a picture, exact, fair path",
            unit="pictures",
            sizes=(2, 4, 8, 16),
            full_sizes=(25, 50, 100, 200),
            case=fair_case,
            reach=4,
        ),
        _views(
            name="views-raw",
            what="all 12 views of a picture, exact, raw path",
            unit="pictures",
            sizes=(2, 4, 8, 16),
            full_sizes=(25, 50, 100, 200),
            case=raw_case,
            reach=4,
        ),
        _views(
            name="views-scaled",
            what="all 12 views of a picture, scaled decoding, fair path",
            unit="pixels on the shorter side",
            sizes=(480, 720, 1440, 2880),
            case=scaled_case,
            reach=8,
        ),
        Row(
            name="embed",
            what="VGG16 features on a CPU, exact",
            plainly="torch, float32, picture by picture",
            unit="pictures",
            sizes=(2, 4, 8, 16),
            full_sizes=(16, 32, 64, 128),
            case=exact_case,
            reach=1.3,
            libraries=("torch", "torchvision", "ncnn", "numpy"),
        ),
        Row(
            name="onnx",
            what="a brought ONNX detector of 100 MB, all 12 views of a picture",
            plainly="ONNX Runtime alone on prepared tensors",
            unit="pictures",
            sizes=(1, 2, 3, 4),
            full_sizes=(4, 8, 16, 32),
            case=onnx_case,
            reach=0.8,
            pairs=3,
            libraries=("onnxruntime", "pillow", "numpy"),
        ),
        Row(
            name="svm",
            what="SVM, C chosen among 8 by validation, 4,096 dimensions",
            plainly='`SVC(kernel="linear")` fitted 8 times',
            unit="training rows",
            sizes=(80, 160, 320, 640),  # even: telltale weighs classes, the plain way does not
            full_sizes=(500, 1_000, 2_000, 4_000),
            case=svm_case,
            reach=50,
            pairs=3,
            libraries=("scikit-learn", "numpy"),
        ),
        Row(
            name="frechet",
            what="Fréchet distance, cached reference",
            plainly="`scipy.linalg.sqrtm`",
            unit="dimensions",
            sizes=(128, 256, 512, 1_024),
            full_sizes=(256, 512, 1_024, 2_048),
            case=frechet_case,
            reach=40,
            libraries=("scipy", "numpy"),
        ),
        _feature_store(
            name="feature-store-read",
            what="feature store, 1,000 rows read to NumPy",
            case=reading_case,
            reach=5,
        ),
        _feature_store(
            name="feature-store-write",
            what="feature store, 1,000 rows written",
            case=writing_case,
            reach=2.5,
        ),
        _memory(
            name="memory",
            what="memory of embedding a shard in 12 views, stub model with 4,096 features",
            sizes=(64, 125, 250, 500),
            full_sizes=(1_250, 2_500, 5_000, 10_000),
            case=partial(memory_case, network="stub"),
            libraries=("pyarrow", "numpy"),
        ),
        _memory(
            name="memory-vgg16",
            what="memory of embedding a shard in 12 views, VGG16 fc7",
            sizes=(1, 2, 4, 8),
            full_sizes=(62, 125, 250, 500),
            case=partial(memory_case, network="vgg16"),
            libraries=("torch", "ncnn", "pyarrow", "numpy"),
        ),
        _alone(
            name="plan",
            what="elements of the preset `coco` planned over made-up inputs, and their documents",
            unit="elements",
            sizes=(1_000, 2_000, 5_000, 10_000),
            full_sizes=(10_000, 20_000, 50_000, 100_000),
            case=plan_case,
            at_most=60,
            libraries=("pydantic", "prefect"),
        ),
        _alone(
            name="assign",
            what="memory of the step that assigns groups and splits, over made-up scans",
            unit="pictures",
            sizes=(10_000, 20_000, 40_000, 80_000),
            full_sizes=(125_000, 250_000, 500_000, 1_000_000),
            case=assigning_case,
            costs="bytes",
            libraries=("numpy", "pyarrow"),
        ),
        _alone(
            name="orchestration",
            what="orchestration: wall time of the offline sample without a step at work; all is there from run 2 on",
            unit="runs of one store",
            sizes=(1, 2, 3, 4),
            case=sample_case,
            at_most=AGAIN_S,
            threads=(2,),
            libraries=("prefect", "torch"),
        ),
        _alone(
            name="pools-claims",
            what="elements of 20 to 40 s on up to 200 simulated lanes: claims that others had, of those tried",
            unit="elements",
            sizes=(250, 500, 1_000, 2_000),
            full_sizes=(1_000, 5_000, 20_000, 100_000),
            case=lanes_case,
            at_most=LOST_PER_CENT,
            costs="%",
            libraries=("prefect",),
        ),
        _alone(
            name="pools-killed",
            what="the same with a tenth of the lanes killed: work lost with one of them",
            unit="elements",
            sizes=(250, 500, 1_000, 2_000),
            full_sizes=(1_000, 2_000, 5_000, 10_000),
            case=killed_case,
            at_most=WORK_LOST_S,
            libraries=("prefect",),
        ),
        _alone(
            name="pools-sample",
            what="the offline sample on simulated workers, by its critical path or its work per worker",
            unit="workers of each pool",
            sizes=(1, 2, 3, 4),
            case=sample_on_pools_case,
            at_most=TO_CRITICAL_PATH,
            costs="times",
            libraries=("prefect", "torch"),
        ),
    )
}
