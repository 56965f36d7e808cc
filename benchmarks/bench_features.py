"""Images and titles a second of an encoder, with the decoder's and the model's share.

    python benchmarks/bench_features.py --images DIR [--weights FILE] [--device cuda] [--batch-sizes 32 128]

Without --images it makes poster-sized JPEGs; without --weights the weights are random (speed is the same).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tabulate import tabulate

from fedvlr_plugin.errors import FedVLRError
from fedvlr_plugin.features.encode import make_encoder
from fedvlr_plugin.profiling.encoder import images_in, made_up_images, measure_images, measure_texts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of images")
    parser.add_argument("--count", type=int, default=300, help="images at most")
    parser.add_argument("--titles", type=int, default=2000, help="number of titles")
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[64])
    parser.add_argument("--threads", type=int, help="decoding threads; default: the cores, 16 at most")
    options = parser.parse_args()
    settings: dict[str, object] = {"model": options.model, "device": options.device}
    settings |= {"weights": options.weights} if options.weights else {"allow_random_weights": True}
    try:
        encoder = make_encoder("clip", settings)
        with tempfile.TemporaryDirectory() as scratch:
            folder = options.images
            paths = images_in(folder, options.count) if folder else made_up_images(Path(scratch), options.count)
            lines = []
            for size in options.batch_sizes:
                for one in (
                    measure_images(encoder, paths, size, options.threads),
                    measure_texts(
                        encoder, [f"A title of some words, number {k} (1999)" for k in range(options.titles)], size
                    ),
                ):
                    share = [f"{100 * part / one.total_s:.0f} %" for part in (one.encoder_s, one.waiting_s)]
                    alone = f"{one.rows / one.decoding_s:.0f} /s" if one.decoding_s else "-"
                    lines.append(
                        [one.what, size, one.rows, f"{one.total_s:.2f}", f"{one.per_second:.0f} /s", *share, alone]
                    )
    except FedVLRError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{encoder.label}; {encoder.facts()['precision']}; {os.cpu_count()} cores")
    print(
        tabulate(
            lines,
            ["", "batch", "rows", "seconds", "end to end", "model", "waiting", "decoding alone"],
            disable_numparse=True,
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
