import pickle

import pytest
import torch
from torch.nn.functional import avg_pool2d

from tests.conftest import SMALL_NETS, compose
from vaegan.data.shapes import Shapes
from vaegan.images import to_float
from vaegan.metrics import real_statistics
from vaegan.metrics.feature_extractors import (
    FeatureExtractor,
    InceptionExtractor,
    build_feature_extractor,
)
from vaegan.metrics.real_statistics import compute_real_statistics, content_hash, load_features
from vaegan.metrics.scores import FeatureBatch, frechet_distance, kernel_distance
from vaegan.vae.model import VAE

CPU = torch.device("cpu")


def make_vae(shape=(1, 28, 28), *overrides):
    return VAE(shape, compose("stage=vae", *SMALL_NETS, *overrides))


def build(name, shape=(1, 28, 28), classifier="mnist", **options):
    vae = make_vae(shape, *(["likelihood=gaussian"] if shape[0] == 3 else []))
    return FeatureExtractor.choices[name].Config(**options).build(vae, classifier)


@pytest.fixture(autouse=True)
def features_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vaegan" / "features"


@pytest.mark.parametrize("name, num_classes", [("digits_cnn", 10), ("vae_encoder", None)])
def test_feature_extractor_is_frozen_and_in_eval_mode(name, num_classes):
    network = build(name).train()
    images = torch.rand(3, 1, 28, 28)
    features = network(images)
    assert features.shape == (3, network.num_features) and not features.requires_grad
    assert not network.training and network.name == name
    logits = network.classify(features)
    if num_classes is None:
        assert logits is None
    else:
        assert logits.shape == (3, num_classes)


def test_digits_cnn_combines_three_channels():
    images = torch.rand(2, 3, 28, 28)
    network, single = build("digits_cnn", (3, 28, 28)), build("digits_cnn")
    features = network(images)
    assert features.shape == (2, 300)
    parts = [single(images[:, i : i + 1]) for i in range(3)]
    torch.testing.assert_close(features, torch.cat(parts, 1))
    probabilities = [single.classify(part).softmax(-1) for part in parts]
    joint = network.classify(features).exp()
    assert joint.shape == (2, 1000)
    expected = torch.stack([p[torch.arange(2), [1, 4]] for p in probabilities]).prod(0)
    torch.testing.assert_close(joint[torch.arange(2), [111, 444]], expected)
    digits = torch.stack([p.argmax(1) for p in probabilities])
    expected_classes = (digits * torch.tensor([[100], [10], [1]])).sum(0)
    assert torch.equal(network.classify(features).argmax(1), expected_classes)


def test_vae_encoder_is_a_copy():
    vae = make_vae()
    network = build_feature_extractor(None, vae, None)
    images = torch.rand(2, 1, 28, 28)
    before = network(images)
    torch.nn.init.zeros_(next(vae.encoder.parameters()))
    assert torch.equal(network(images), before)
    assert all(p.requires_grad for p in vae.encoder.parameters())


def test_default_is_digits_cnn_for_known_classes():
    assert build_feature_extractor(None, make_vae(), "fashion_mnist").name == "digits_cnn"
    assert build_feature_extractor(None, make_vae(), None).name == "pyramid"


@pytest.mark.parametrize("shape, classifier", [((1, 28, 28), None), ((1, 32, 32), "mnist")])
def test_digits_cnn_rejects_unknown_data(shape, classifier):
    with pytest.raises(
        ValueError,
        match="feature_extractor=digits_cnn supports only .* Choose feature_extractor=pyramid",
    ):
        build("digits_cnn", shape, classifier)


def test_inception_rejects_missing_unsafe_and_wrong_weights(tmp_path):
    class Payload:
        def __reduce__(self):
            return (tmp_path / "executed").touch, ()

    path = tmp_path / "weights.pth"
    with pytest.raises(
        ValueError, match="feature_extractor.path=.*weights.pth does not exist; download https://"
    ):
        build("inception", path=str(path))
    path.write_bytes(pickle.dumps(Payload(), protocol=2))
    with pytest.raises(ValueError, match="is damaged or contains objects other than tensors"):
        build("inception", path=str(path))
    assert not (tmp_path / "executed").exists()
    torch.save({"fc.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(
        ValueError, match="must contain the weights of InceptionV3; download https://"
    ):
        build("inception", path=str(path))
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="must contain a dict of tensors"):
        build("inception", path=str(path))


def test_failed_download_of_inception_is_reported(monkeypatch):
    import torch_fidelity.feature_extractor_inceptionv3 as library

    def fail(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(library, "load_state_dict_from_url", fail)
    with pytest.raises(
        ValueError,
        match="cannot download .* .no route to host.; download https.* feature_extractor.path",
    ):
        build("inception")


@pytest.mark.slow
def test_inception_loads_weights_from_a_file(tmp_path, monkeypatch):
    import torch_fidelity.feature_extractor_inceptionv3 as library

    monkeypatch.setattr(library, "load_state_dict_from_url", lambda *args, **kwargs: {})
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", lambda *args, **kwargs: None)
    raw = library.FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"])
    monkeypatch.undo()
    torch.save(raw.state_dict(), tmp_path / "weights.pth")
    network = build("inception", path=str(tmp_path / "weights.pth"))
    images = torch.rand(2, 1, 28, 28)
    features, logits = raw((images.expand(-1, 3, -1, -1) * 255).round().byte())
    torch.testing.assert_close(network(images), features)
    torch.testing.assert_close(network.classify(network(images)), logits)
    assert isinstance(network, InceptionExtractor) and network.num_features == 2048


def random_images(num_images=300, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (num_images, 1, 28, 28), dtype=torch.uint8, generator=generator)


def test_features_are_cached_under_a_hash_of_data_and_network(features_folder, monkeypatch):
    network, images = build("digits_cnn"), random_images()
    first = load_features(network, images, len(images), CPU)
    assert len(list(features_folder.iterdir())) == 1
    monkeypatch.setattr(real_statistics, "compute_features", None)  # a second call would fail
    assert torch.equal(load_features(network, images, len(images), CPU), first)
    assert content_hash(network, images, 300) != content_hash(network, random_images(seed=1), 300)
    assert content_hash(network, images, 300) != content_hash(
        build("digits_cnn", classifier="fashion_mnist"), images, 300
    )
    rescaled = build("digits_cnn")
    rescaled.net.scales *= 2
    assert content_hash(network, images, 300) != content_hash(rescaled, images, 300)


def test_damaged_cache_is_recomputed(features_folder):
    network, images = build("digits_cnn"), random_images()
    first = load_features(network, images, len(images), CPU)
    (path,) = features_folder.iterdir()
    path.write_bytes(path.read_bytes()[:100])
    assert torch.equal(load_features(network, images, len(images), CPU), first)
    assert path.stat().st_size > 100


def test_unwritable_cache_logs_a_warning(monkeypatch, tmp_path, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert load_features(build("digits_cnn"), random_images(), 300, CPU).shape == (300, 100)
    assert "cannot cache features of real images" in caplog.text


def test_features_of_the_vae_encoder_are_not_cached(features_folder):
    load_features(build("vae_encoder"), random_images(10), 10, CPU)
    assert not features_folder.exists()


def test_baseline_scores_other_real_images():
    network = build("digits_cnn")
    statistics = compute_real_statistics(
        network, random_images(200), random_images(300, seed=1), CPU
    )
    real, scores = statistics.real, statistics.real_vs_real
    assert real.features.shape == (200, 100) and real.logits.shape == (200, 10)
    assert 0 < scores["frechet_distance"] and "class_kl" in scores
    same = compute_real_statistics(network, random_images(200), random_images(200), CPU)
    assert same.real_vs_real["frechet_distance"] < 1e-6


@pytest.mark.parametrize(
    "shape, num_features", [((3, 32, 32), 80), ((3, 64, 64), 96), ((1, 16, 20), 32)]
)
def test_pyramid_has_local_colors_and_edges_of_each_level(shape, num_features):
    extractor = build_feature_extractor(None, VAE(shape), classifier=None)
    assert extractor.name == "pyramid" and extractor.num_features == num_features
    assert extractor(torch.rand(2, *shape)).shape == (2, num_features)


def test_images_below_16_pixels_are_scored_by_the_encoder():
    assert build_feature_extractor(None, VAE((3, 12, 32)), classifier=None).name == "vae_encoder"


def test_pyramid_sees_blur_and_a_dot_grid_on_blurred_images():
    source = Shapes.Config(channels=3, height=32, width=32).build()
    images = to_float(source.split("train").images[:600])
    blurred = avg_pool2d(images, 5, stride=1, padding=2, count_include_pad=False)
    dots = blurred.clone()
    dots[:, :, ::2, ::2] += 0.1
    extractor = build_feature_extractor(None, VAE((3, 32, 32)), classifier=None)
    real, clean, damaged = (FeatureBatch(extractor(x)) for x in (images, blurred, dots.clamp(0, 1)))
    halves = frechet_distance(FeatureBatch(real.features[:300]), FeatureBatch(real.features[300:]))
    assert frechet_distance(real, clean) > 3 * halves
    assert frechet_distance(clean, damaged) > 3 * halves


def test_blur_of_images_on_white_costs_more_kernel_distance_than_a_slightly_darker_tone():
    source = Shapes.Config(channels=3, height=32, width=32).build()
    images = 1 - to_float(source.split("train").images[:600])
    extractor = build_feature_extractor(None, VAE((3, 32, 32)), classifier=None)
    blurred = avg_pool2d(images[300:], 3, stride=1, padding=1, count_include_pad=False)
    darker = (images[300:] - 0.02).clamp(min=0)
    real, blurred, darker = (FeatureBatch(extractor(x)) for x in (images[:300], blurred, darker))
    assert kernel_distance(real, blurred) > kernel_distance(real, darker)
