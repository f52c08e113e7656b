"""Train the same VAE with vaegan and with pythae 0.1.2, and score each model with both libraries.

    uv run --with pythae==0.1.2 python benchmarks/pythae_comparison.py [EPOCHS] [IMAGES] [SAMPLES]
    uv run --with pythae==0.1.2 python benchmarks/pythae_comparison.py speed [ROUNDS]

Networks (vaegan's mlp with 512-512 units, 32 latents), data, epochs and batch size are the same.
The data set is MNIST with static binarization, because pythae has no dynamic binarization. vaegan
trains one model with its defaults and one ("plain") with the settings of pythae: Adam with a
constant learning rate of 1e-3, and beta = 1 in all epochs. The only remaining difference is the
initialization: the decoder of vaegan starts at the mean image. Both libraries score the same test
images, but with different random latents.

speed   time `Trainer.fit` of vaegan and `train` of pythae alternately, each for one epoch on a
        tenth of MNIST with vaegan's default convolutional networks. Both validate and save a
        checkpoint, and treat denormal numbers as zero; vaegan also binarizes each batch, logs, and
        saves image grids. The ratio is that of pythae's time to vaegan's: above 1, vaegan is
        faster.
"""

import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from pythae.data.datasets import DatasetOutput
from pythae.models import VAE as PythaeVAE
from pythae.models import VAEConfig as PythaeConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from throughput import compose, time_vaegan
from torch.distributions import Independent, Normal
from torch.nn.functional import softplus

from vaegan.checkpoints.checkpoint import load_checkpoint
from vaegan.cli.registration import register
from vaegan.data.mnist import Mnist
from vaegan.images import to_float
from vaegan.runtime.denormals import denormals_as_zero
from vaegan.stages.stage_table import run_stage
from vaegan.vae.evaluation import ImageScores, score_images, summarize_scores
from vaegan.vae.model import VAE

FRACTION = 0.1  # of the training set, to compare the speed
PLAIN = [
    "optimizer.lr=1e-3",
    "optimizer.lr_warmup=0",
    "optimizer.lr_final=1",
    "objective.beta_schedule=constant",
]
OVERRIDES = [
    "stage=vae",
    "encoder=mlp",
    "decoder=mlp",
    "likelihood.static_seed=0",
    "trainer.enable_progress_bar=false",
]


class Encoder(BaseEncoder):
    """Encoder of vaegan in pythae's interface.

    Args:
        net: The encoder network.
        has_scale: True if the second half of the features is vaegan's unconstrained scale, False if
            it is pythae's log-variance.
    """

    def __init__(self, net, has_scale):
        super().__init__()
        self.net = net
        self.has_scale = has_scale

    def forward(self, x):
        mean, raw = self.net(x).chunk(2, 1)
        log_variance = 2 * (softplus(raw) + 1e-4).log() if self.has_scale else raw
        return ModelOutput(embedding=mean, log_covariance=log_variance)


class Decoder(BaseDecoder):
    """Decoder of vaegan in pythae's interface, which requires probabilities."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, z):
        return ModelOutput(reconstruction=self.net(z).sigmoid())


class Images(torch.utils.data.Dataset):
    """Data set of images in pythae's interface."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return DatasetOutput(data=self.images[index])


def to_pythae(vae, has_scale):
    """Return a pythae model with the networks of a vaegan model."""
    config = PythaeConfig(
        input_dim=(1, 28, 28), latent_dim=vae.prior.latent_dim, reconstruction_loss="bce"
    )
    return PythaeVAE(config, Encoder(vae.encoder, has_scale), Decoder(vae.decoder))


def train_vaegan(run):
    """Train with vaegan; return the model and the seconds."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        checkpoint = run_stage(run, Path(folder)).checkpoint
        return load_checkpoint(checkpoint).build_vae(), time.perf_counter() - start


def train_pythae(run, train, val):
    """Train a pythae model with vaegan's networks; return a vaegan model and the seconds."""
    torch.manual_seed(run.seed)
    vae = VAE((1, 28, 28), run)
    with tempfile.TemporaryDirectory() as folder:
        config = BaseTrainerConfig(
            output_dir=folder,
            learning_rate=1e-3,
            per_device_train_batch_size=run.loader.batch_size,
            per_device_eval_batch_size=500,
            num_epochs=run.trainer.max_epochs,
            steps_saving=None,
            no_cuda=True,
        )
        trainer = BaseTrainer(to_pythae(vae, has_scale=False), Images(train), Images(val), config)
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
        best = trainer._best_model
    vae.encoder.load_state_dict(best.encoder.net.state_dict())
    vae.decoder.load_state_dict(best.decoder.net.state_dict())
    vae.encode = lambda x: log_variance_posterior(vae.encoder(x))
    return vae.eval(), seconds


def log_variance_posterior(features):
    """Return the posterior for pythae's features: mean and log-variance."""
    mean, log_variance = features.chunk(2, 1)
    return Independent(
        Normal(mean, (log_variance / 2).exp(), validate_args=False), 1, validate_args=False
    )


@denormals_as_zero()
def compare_speed(rounds):
    """Print the seconds of an epoch in both libraries, and their ratio."""
    run = compose("stage=vae", "trainer.max_epochs=1", f"trainer.limit_train_batches={FRACTION}")
    source = Mnist.Config().build()
    train, val = (
        run.likelihood.build((1, 28, 28)).target(to_float(source.split(name).images))
        for name in ("train", "val")
    )
    batch_size = run.loader.batch_size
    train = train[: int(FRACTION * (len(train) // batch_size)) * batch_size]
    pairs = [(time_vaegan(run)[0] / 1e3, train_pythae(run, train, val)[1]) for _ in range(rounds)]
    ratios = [pythae / ours for ours, pythae in pairs]
    ours, pythae = (statistics.median(side) for side in zip(*pairs, strict=True))
    print(
        f"vaegan {ours:.1f} s, pythae {pythae:.1f} s, ratio {statistics.median(ratios):.3f} "
        f"({min(ratios):.3f} to {max(ratios):.3f})"
    )


def main():
    logging.getLogger("pythae").setLevel(logging.ERROR)
    register()
    if sys.argv[1:2] == ["speed"]:
        compare_speed(int(sys.argv[2]) if len(sys.argv) > 2 else 5)
        return
    arguments = [int(word) for word in sys.argv[1:4]]
    epochs, num_images, num_samples = arguments + [10, 500, 1000][len(arguments) :]
    run, plain = (
        compose(*OVERRIDES, *extra, f"trainer.max_epochs={epochs}") for extra in ([], PLAIN)
    )
    likelihood = VAE((1, 28, 28), run).likelihood
    source = Mnist.Config().build()
    train, val, test = (
        likelihood.target(to_float(source.split(name).images)) for name in ("train", "val", "test")
    )
    test = test[:num_images]
    models = {
        "vaegan": (*train_vaegan(run), True),
        "vaegan, plain": (*train_vaegan(plain), True),
        "pythae": (*train_pythae(run, train, val), False),
    }
    print(
        f"{epochs} epochs; NLL in nats per image on {num_images} test images, "
        f"{num_samples} samples per image"
    )
    print(f"{'trained by':<15}{'seconds':>10}{'NLL (vaegan)':>14}{'NLL (pythae)':>14}")
    for name, (vae, seconds, has_scale) in models.items():
        with torch.no_grad():
            parts = [score_images(vae, images, num_samples, 20_000) for images in test.split(100)]
            scores = ImageScores(*(torch.cat(values) for values in zip(*parts, strict=True)))
            nll = summarize_scores(scores, vae.likelihood)["nll"]
            pythae_model = to_pythae(vae, has_scale).eval()
            pythae_nll = -pythae_model.get_nll(test, num_samples, batch_size=100)
        print(f"{name:<15}{seconds:>10.0f}{nll:>14.2f}{pythae_nll:>14.2f}", flush=True)


if __name__ == "__main__":
    main()
