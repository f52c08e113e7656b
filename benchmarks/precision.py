"""Compare training steps in bfloat16 and in float32 on the CPU.

    OMP_NUM_THREADS=1 python benchmarks/precision.py IMAGES [--rounds 3] [--steps 60] [--mnist]

IMAGES is a folder of images; they are resized to 32 x 32 pixels. `--mnist` also measures the VAE of
MNIST. Each round trains both stages with `trainer.precision=32-true` and `bf16-mixed`, alternately
and with the default networks. The table shows the median time of a training step over rounds, in
milliseconds, and the ratio float32 / bfloat16: median over rounds, smallest and largest. Above 1,
bfloat16 is faster, as on a CPU with AMX. ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 and AVX512_CORE limit
oneDNN to the instructions of CPUs without AMX.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from throughput import compose, execute, time_vaegan

from vaegan.cli.registration import register
from vaegan.runtime.denormals import denormals_as_zero

PRECISIONS = ("32-true", "bf16-mixed")


def compare(name, words, rounds):
    """Print the times of a training step in both precisions."""
    runs = [compose(*words, f"trainer.precision={precision}") for precision in PRECISIONS]
    pairs = [[time_vaegan(run)[1] for run in runs] for _ in range(rounds)]
    float32, bfloat16 = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratios = [first / second for first, second in pairs]
    print(
        f"{name:12} float32 {float32:7.1f} ms, bfloat16 {bfloat16:7.1f} ms, ratio "
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        flush=True,
    )


@denormals_as_zero()
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", help="folder of images")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--mnist", action="store_true")
    args = parser.parse_args()
    register()
    root = f"dataset.root={Path(args.images).absolute()}"
    images = ["dataset=image_folder", root, "dataset.image_size=32"]
    duration = [f"trainer.max_images={64 * args.steps}", "trainer.accelerator=cpu"]
    duration.append("trainer.val_check_interval=1")
    with tempfile.TemporaryDirectory() as folder:
        execute(compose("stage=vae", *images, *duration), Path(folder))
        compare("VAE", ["stage=vae", *images, *duration], args.rounds)
        gan = ["stage=gan", f"vae_ckpt={folder}", "discriminator_warmup=0"]
        compare("GAN", [*gan, *duration], args.rounds)
    if args.mnist:
        compare("VAE, MNIST", ["stage=vae", *duration], args.rounds)


if __name__ == "__main__":
    main()
