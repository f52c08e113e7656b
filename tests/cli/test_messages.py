"""Each misspelling gets one sentence that shows what to write, and nothing else."""

import pytest

MESSAGES = [
    ("arm=cold", "experiment=warm_start_study; .* write +arm=NAME"),
    ("dataset=/my/folder", "write dataset=image_folder dataset.root=/my/folder"),
    ("dataset=~/pics", "write dataset=image_folder dataset.root='~/pics'"),
    ("dataset=./pics", "write dataset=image_folder dataset.root=./pics"),
    ("+experiment=smoke", "write experiment=smoke without +"),
    ("+likelihood=gaussian", "write likelihood=gaussian without +"),
    ("experiment=[r3gan,gpus]", "experiment=gpus is not a known choice. Did you mean gpu?"),
    ("prior=[flow,vamp_prior]", "select one prior; for a sweep, write -m prior=flow,vamp_prior"),
    ("experiment=smok", "experiment=smok is not a known choice. Did you mean smoke?"),
    (
        "stage=vae experiment=smoke",
        "experiment=smoke sets vae, which stage=vae does not have; the experiment is for "
        "stage=pipeline",
    ),
    (
        "trainer=gpu",
        "such as trainer.accelerator=gpu. For large networks on a GPU, add experiment=gpu",
    ),
    ("stage=vae trainer=gpu", "trainer is a section of settings"),
    ("vae.trainer=gpu", "such as vae.trainer.accelerator=gpu"),
    ("stage=vae loader=64", "loader is a section of settings"),
    ("dataset=image_folder", "dataset.root must be set"),
    ("stage=vae stage=gan", "stage is set 2 times: stage=vae stage=gan; keep one of them"),
    ("prior=flow prior=vamp_prior", "prior is set 2 times"),
    (
        "dataset.image_size=32",
        "a key of dataset=image_folder (also of .*streaming.*), which is not selected; for a "
        "folder of images, add dataset=image_folder dataset.root=FOLDER",
    ),
    ("dataset=cifar10 dataset.image_size=32", "is a key of dataset=image_folder"),
    ("trainer.max_epochs=3", "Did you mean vae.trainer.max_epochs or gan.trainer.max_epochs?"),
    ("seed=-1", "seed must be at least 0; got -1"),
    ("stage=evaluate ckpt=x seed=-1", "seed must be at least 0; got -1"),
    ("stage=train", "The training stages are vae, gan, and pipeline"),
    ("stage=eval ckpt=x", "Did you mean evaluate?"),
    ("stage=VAE", "Did you mean vae?"),
    ("model=vae", "unknown key model .* Did you mean stage?"),
    ("epochs=10", "Did you mean vae.trainer.max_epochs or gan.trainer.max_epochs?"),
    ("stage=vae epochs=10", "Did you mean trainer.max_epochs?"),
    ("batch_size=64", "Did you mean vae.loader.batch_size or gan.loader.batch_size"),
    ("stage=vae lr=1e-3", "Did you mean optimizer.lr?"),
    ("learning_rate=1e-3", "Did you mean vae.optimizer.lr or"),
    ("data=mnist", "Did you mean dataset?"),
    ("data_dir=x", "Did you mean dataset.root?"),
    ("stage=evaluate checkpoint=x", "Did you mean ckpt?"),
    ("stage=gan vae=x", "Did you mean vae_ckpt?"),
    ("ckpt=missing", "ckpt for stage=pipeline.*ckpt"),
    ("gpus=1", "Did you mean trainer.devices"),
    ("device=cuda", "Did you mean trainer.accelerator"),
    ("stage=vae trainer.gpus=1", "Did you mean trainer.devices?"),
    ("workers=4", "Did you mean vae.loader.num_workers or gan.loader.num_workers?"),
    ("z_dim=16", "Did you mean latent_dim?"),
    ("posterioor.name=normal", "Did you mean posterior.name?"),  # not label, as for name
    ("prior.latnet=16", "Did you mean latent_dim?"),  # not prior.name, which has the same section
    ("output_dir=x", "Did you mean hydra.run.dir?"),
    ("vae", "to select a stage, write stage=vae"),
    ("gaussian", "write likelihood=gaussian"),
    ("train", "train is not a setting: settings are written as KEY=VALUE"),
    ("stage:vae", "write KEY=VALUE with an equals sign: stage=vae"),
    ("latent_dim = 5", "latent_dim has no value: write latent_dim=VALUE, without spaces"),
    ("--epochs=10", "unknown option --epochs: settings are written without dashes"),
    ("--lr 1e-3", "unknown option --lr"),
    ("-e 10", "unknown option -e"),
    ("--multi-run", "unknown option --multi-run.*"),
    ("--cfg foo", "--cfg foo: expected one of job, hydra, all"),
    ("likelihood=null", "likelihood=null: to use the default, omit likelihood; if an experiment"),
    ("likelihood=", "likelihood=: to use the default, omit likelihood"),
    ("-m likelihood=null,gaussian", "to use the default, omit likelihood"),
    ("stage=null", "stage=null: write stage=NAME, or omit it"),
    ("stage=", "write stage=NAME, or omit it"),
    ("~stage", "write stage=NAME, or omit it"),
    ("experiment=null", "to use no experiment, omit experiment"),
    ("experiment=", "to use no experiment, omit experiment"),
    ("experiment=warm_start_study arm=null", "arm=null: write arm=NAME, or omit arm"),
    ("hydra/launcher=null", "omit hydra/launcher"),
    ("plugins=null", "plugins must not be null; to use the default, omit it"),
    ("plugins=", "plugins must be a list, such as 'plugins=[VALUE]'"),
    ("resume=null", "resume=null: write resume=FOLDER, resume=last, resume=true or resume=false"),
    ("resume=", "write resume=FOLDER, resume=last, resume=true or resume=false"),
    ("hydra.run.dir=", "write hydra.run.dir=FOLDER, or omit it"),
    ("latent_dim=null", "latent_dim must not be null; to use the default, omit it"),
    ("callbacks={a:1}", "callbacks must be a list, such as 'callbacks=[VALUE]'"),
    ("callbacks=[null]", "callbacks[0] must not be null"),
    ("vae.trainer.benchmark=maybe", "vae.trainer.benchmark must be true or false"),
    ("~seed", "only a component can be removed; to use the default, omit seed"),
    ("~nothing", "unknown key nothing"),
    ("+seed=2", "seed is a known key: write it without +"),
    ("/dataset=mnist", "unknown key /dataset for stage=pipeline. Did you mean dataset?"),
    ("SEED=1", "Did you mean seed?"),
    ("stage=vae latent_dim=9999999999999", "out of memory: .*Try a smaller"),
    ("stage=vae trainer={max_epoch:1}", "trainer.max_epoch .*Did you mean trainer.max_epochs?"),
    ("stage=vae -m seed=a,b", "seed must be a whole number"),
    ("-cp /no/such", "-cp /no/such is not a folder"),
    ("--config-dir=/no/such", "--config-dir /no/such is not a folder"),
    ("--config-dir /no/such", "--config-dir /no/such is not a folder"),
    ("dataset=MNIST", "Did you mean mnist?"),
    ("dataset=fashion-mnist", "Did you mean fashion_mnist?"),
    ("dataset=flowers", "For a folder of images, write dataset=image_folder dataset.root=FOLDER"),
    ("latent_dim=many", "latent_dim must be a whole number"),
    ("vae.optimizer.lr=fast", "vae.optimizer.lr must be a number"),
    ("label=lr=0.1", "to use it as it is, write label=\"'lr=0.1'\""),
    ("label=Übung", "write label=\"'Übung'\""),
    ("label=a,b", "add -m; for one value with a comma, write label=\"'a,b'\""),
    ("seed=0,1", "for a sweep over these values, add -m"),
    ("plugins=mymod", "mymod"),
    ("callbacks=[nope]", "nope"),
    ("stage=compare runs=outputs", "outputs"),
]
FOREIGN = (
    "mismatched input",
    "Lexer",
    "hydra.cc",
    "defaults list",
    "ConfigAttribute",
    "usage:",
    "Available options",
    "Optional",
    "ListConfig",
    "NoneType",
    "Error parsing",
)


@pytest.mark.parametrize("command, message", MESSAGES)
def test_a_misspelling_is_explained(train, tmp_path, command, message):
    exit_code, out, err = train(*(command.split(" ") if "'" not in command else [command]))
    parts = message.split(".*")
    assert all(part in str(exit_code) for part in parts), exit_code
    assert not any(text in f"{exit_code}{out}{err}" for text in FOREIGN)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text, message",
    [
        ("trainer: {max_epoch: 1}", "mine sets trainer.max_epoch, .*mean trainer.max_epochs?"),
        ("trainer: {max_epochs: two}", "mine: trainer.max_epochs must be a whole number"),
    ],
)
def test_an_error_in_the_file_of_an_experiment_is_explained(train, tmp_path, text, message):
    (tmp_path / "experiment").mkdir()
    path = tmp_path / "experiment" / "mine.yaml"
    path.write_text(f"# @package _global_\ndefaults:\n  - override /stage: vae\n{text}\n")
    exit_code, _, _ = train("--config-dir", tmp_path, "experiment=mine")
    assert all(part in str(exit_code) for part in message.split(".*")), exit_code


def test_the_version_is_printed(train):
    exit_code, out, _ = train("--version")
    assert exit_code is None and out.startswith("vaegan ")
