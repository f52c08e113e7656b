"""The same VAE trained by vaegan and by pythae 0.1.2, each scored by both evaluators.

    uv run --with pythae==0.1.2 python benchmarks/pythae_comparison.py [epochs] [images] [samples]

Same networks (vaegan's mlp, 512-512, 32 latents), same data (MNIST, every image binarized once, as
pythae cannot binarize anew), same epochs and batch size. vaegan trains twice: with its defaults,
and plainly, which is pythae's way: Adam at a constant 1e-3 and beta = 1 throughout. What then
differs is the start alone: vaegan's decoder begins at the mean image. Both evaluators score the
same test images; the latents that they draw differ.
"""

import logging
import sys
import tempfile
import time
from pathlib import Path

import hydra
import torch
from pythae.data.datasets import DatasetOutput
from pythae.models import VAE as PythaeVAE
from pythae.models import VAEConfig as PythaeConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from torch.distributions import Independent, Normal
from torch.nn.functional import softplus

from vaegan.checkpoints.checkpoint import load_checkpoint
from vaegan.cli.registration import register, to_run_config
from vaegan.data.mnist import Mnist
from vaegan.images import to_float
from vaegan.stages.stage_table import run_stage
from vaegan.vae.evaluation import ImageScores, score_images, summarize_scores
from vaegan.vae.model import VAE

CONF = Path(__file__).parents[1] / "conf"
PLAIN = [
    "optimizer.lr=1e-3",
    "optimizer.lr_warmup=0",
    "optimizer.lr_final=1",
    "objective.beta_schedule=constant",
]
SETTINGS = [
    "stage=vae",
    "encoder=mlp",
    "decoder=mlp",
    "likelihood.static_seed=0",
    "trainer.enable_progress_bar=false",
]


class Encoder(BaseEncoder):
    """A vaegan encoder for pythae: mean and log-variance from its features, as each library reads
    them."""

    def __init__(self, net, reads_scale):
        super().__init__()
        self.net, self.reads_scale = net, reads_scale

    def forward(self, x):
        mean, raw = self.net(x).chunk(2, 1)
        log_variance = 2 * (softplus(raw) + 1e-4).log() if self.reads_scale else raw
        return ModelOutput(embedding=mean, log_covariance=log_variance)


class Decoder(BaseDecoder):
    """A vaegan decoder for pythae, which wants probabilities."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, z):
        return ModelOutput(reconstruction=self.net(z).sigmoid())


class Images(torch.utils.data.Dataset):
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return DatasetOutput(data=self.images[index])


def for_pythae(vae, reads_scale):
    """pythae's model around the networks of a vaegan one."""
    config = PythaeConfig(
        input_dim=(1, 28, 28), latent_dim=vae.prior.latent_dim, reconstruction_loss="bce"
    )
    return PythaeVAE(config, Encoder(vae.encoder, reads_scale), Decoder(vae.decoder))


def train_vaegan(run):
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        checkpoint = run_stage(run, Path(folder)).checkpoint
        return load_checkpoint(checkpoint).build_vae(), time.perf_counter() - start


def train_pythae(run, train, val):
    """vaegan's networks, freshly initialized, in pythae's model, trained by pythae's trainer."""
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
        trainer = BaseTrainer(
            for_pythae(vae, reads_scale=False), Images(train), Images(val), config
        )
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
        best = trainer._best_model
    vae.encoder.load_state_dict(best.encoder.net.state_dict())
    vae.decoder.load_state_dict(best.decoder.net.state_dict())
    vae.encode = lambda x: log_variance_posterior(vae.encoder(x))
    return vae.eval(), seconds


def log_variance_posterior(features):
    """The posterior as pythae reads it."""
    mean, log_variance = features.chunk(2, 1)
    return Independent(
        Normal(mean, (log_variance / 2).exp(), validate_args=False), 1, validate_args=False
    )


def main():
    given = [int(word) for word in sys.argv[1:4]]
    epochs, num_images, num_samples = given + [10, 500, 1000][len(given) :]
    logging.getLogger("pythae").setLevel(logging.ERROR)
    register()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        run, plain = (
            to_run_config(
                hydra.compose("config", [*SETTINGS, *settings, f"trainer.max_epochs={epochs}"])
            )
            for settings in ([], PLAIN)
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
    print(f"{epochs} epochs; NLL in nats of {num_images} test images, {num_samples} samples each")
    print(f"{'trained by':<15}{'seconds':>10}{'by vaegan':>14}{'by pythae':>14}")
    for name, (vae, seconds, reads_scale) in models.items():
        with torch.no_grad():
            parts = [score_images(vae, images, num_samples, 20_000) for images in test.split(100)]
            scores = ImageScores(*(torch.cat(values) for values in zip(*parts, strict=True)))
            ours = summarize_scores(scores, vae.likelihood)
            theirs = -for_pythae(vae, reads_scale).eval().get_nll(test, num_samples, batch_size=100)
        print(f"{name:<15}{seconds:>10.0f}{ours['nll']:>14.2f}{theirs:>14.2f}", flush=True)


if __name__ == "__main__":
    main()
