"""Networks by name, from a checkpoint, from the user's code; preprocessing and labels."""

from __future__ import annotations

import functools
import json
from collections import OrderedDict, UserDict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models, transforms

import layerscope
from layerscope.errors import NetworkError, UsageError
from layerscope.images.preprocessing import CLIPS, HALF, IMAGENET, Preprocessing
from layerscope.networks.alexnet import AlexNet
from layerscope.networks.build import build, preprocessing_for, unbuilt
from layerscope.networks.feeding import batch_of, run, zeros
from layerscope.networks.identify import identify, shapes_of, signatures
from layerscope.networks.open import open_network, transfer
from tests.conftest import picture


@pytest.fixture
def alexnet(tmp_path):
    """A file as the tutorial's training script saves it, with its class_indices.json."""
    torch.manual_seed(0)
    model = AlexNet(5)
    torch.save(model.state_dict(), tmp_path / "AlexNet.pth")
    names = {str(index): name for index, name in enumerate(["daisy", "dandelion", "roses", "sunflowers", "tulips"])}
    (tmp_path / "class_indices.json").write_text(json.dumps(names, indent=4))
    return tmp_path / "AlexNet.pth", model


def test_the_tutorials_alexnet():
    shapes = {key: tuple(tensor.shape) for key, tensor in AlexNet(5).state_dict().items()}
    assert next(iter(shapes)) == "features.0.weight" and list(shapes)[-1] == "classifier.6.bias"
    kernels = [shape[0] for key, shape in shapes.items() if key.startswith("features") and len(shape) == 4]
    assert kernels == [48, 128, 192, 192, 128]
    assert shapes["classifier.1.weight"] == (2048, 4608)
    assert all(module.inplace for module in AlexNet().modules() if isinstance(module, torch.nn.ReLU))


def test_a_tutorial_file_loads_without_and_with_a_name(alexnet):
    path, model = alexnet
    x = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        want = model.eval()(x)
        for given in (str(path), f"layerscope:alexnet={path}"):
            network = open_network(given)
            assert torch.equal(network.model.eval()(x), want)
            assert network.labels == ["daisy", "dandelion", "roses", "sunflowers", "tulips"]
            assert network.preprocessing == HALF


@pytest.mark.parametrize("name", ["resnet34", "resnet101"])
def test_resnets_have_torchvisions_keys_and_load_with_other_classes(tmp_path, name):
    state = {key: torch.zeros(tensor.shape) for key, tensor in unbuilt(f"layerscope:{name}", 5).state_dict().items()}
    assert list(state) == list(unbuilt(f"torchvision:{name}").state_dict())
    torch.save(state, tmp_path / "net.pth")
    network = open_network(str(tmp_path / "net.pth"))
    assert network.name == f"torchvision:{name}"
    assert network.model.fc.out_features == 5
    assert network.preprocessing == IMAGENET
    assert network.labels is None


def test_prefixes_nesting_and_files_of_before_2018(tmp_path):
    state = models.resnet18(num_classes=3).state_dict()
    old = OrderedDict((f"module.{k}", v) for k, v in state.items() if not k.endswith("num_batches_tracked"))
    torch.save({"state_dict": old, "epoch": 3, "optimizer": {}}, tmp_path / "net.pth.tar")
    network = open_network(str(tmp_path / "net.pth.tar"))
    assert network.name == "torchvision:resnet18"
    assert torch.equal(network.model.layer1[0].conv1.weight, state["layer1.0.conv1.weight"])


def test_keys_that_do_not_match_are_named_and_counted(tmp_path):
    state = models.resnet18(num_classes=3).state_dict()
    state["layer1.0.convx.weight"] = state.pop("layer1.0.conv1.weight")
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(NetworkError) as error:
        open_network(f"torchvision:resnet18={tmp_path / 'net.pth'}")
    assert "1 of 122 keys are missing (layer1.0.conv1.weight; nearest: layer1.0.convx.weight)" in str(error.value)
    assert "1 of 122 are not the network's (layer1.0.convx.weight)" in str(error.value)
    assert "it looks like torchvision:resnet18" in str(error.value)
    with pytest.raises(
        NetworkError, match=r"those of no network that layerscope knows \(nearest: torchvision:resnet18"
    ):
        open_network(str(tmp_path / "net.pth"))


def test_shapes_that_do_not_match_are_named(tmp_path):
    state = models.resnet18(num_classes=3).state_dict()
    state["conv1.weight"] = torch.zeros(64, 1, 7, 7)
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(NetworkError, match=r"1 have another shape \(conv1.weight: \(64, 1, 7, 7\) in the file"):
        open_network(f"torchvision:resnet18={tmp_path / 'net.pth'}")


def test_a_checkpoint_of_an_unknown_network(tmp_path):
    torch.save({"a.weight": torch.zeros(3, 3), "b.weight": torch.zeros(2)}, tmp_path / "net.pth")
    with pytest.raises(NetworkError, match=r"its 2 tensors are those of no network"):
        open_network(str(tmp_path / "net.pth"))


def test_the_users_code(tmp_path, code, small):
    network = open_network(f"{code}:small")
    assert network.name == f"{code}:small"
    torch.save(small.state_dict(), tmp_path / "small.pth")
    loaded = open_network(f"{code}:small={tmp_path / 'small.pth'}")
    assert torch.equal(loaded.model.stem.weight, small.stem.weight)
    with pytest.raises(NetworkError, match="has no attribute 'smal'"):
        open_network(f"{code}:smal")
    with pytest.raises(NetworkError, match=r"not a torch.nn.Module"):
        open_network("builtins:dict")
    with pytest.raises(NetworkError, match="no such file"):
        open_network("nowhere.py:small")


def test_a_file_beside_a_checkpoint_never_makes_us_run_code(alexnet, code, tmp_path):
    path, _ = alexnet
    (tmp_path / "classes.json").write_text(json.dumps({"AlexNet.pth": {"network": f"{code}:small"}}))
    assert open_network(str(path)).name == "layerscope:alexnet"
    for junk in ("[]", "{}", "no json", '{"AlexNet.pth": 3}', '{"AlexNet.pth": {"classes": 7, "preprocessing": 4}}'):
        (tmp_path / "classes.json").write_text(junk)
        assert open_network(str(path)).preprocessing == HALF


def test_labels_and_preprocessing_of_the_users_own_network(tmp_path, code, small):
    torch.save(small.state_dict(), tmp_path / "small.pth")
    made = Preprocessing((32, 32), None, (0.5,) * 3, (0.5,) * 3)
    beside = {"small.pth": {"classes": list("abcd"), "preprocessing": made.to_json()}}
    (tmp_path / "classes.json").write_text(json.dumps(beside))
    network = open_network(f"{code}:small={tmp_path / 'small.pth'}")
    assert (network.labels, network.preprocessing) == (list("abcd"), made)


def test_names_that_do_not_exist():
    with pytest.raises(NetworkError, match="nearest: resnet34"):
        open_network("torchvision:resnet3")
    with pytest.raises(NetworkError, match="there are alexnet, resnet34, resnet101"):
        open_network("layerscope:lenet")
    with pytest.raises(UsageError, match="neither a file nor a network"):
        open_network("resnet34")
    assert "never trained" in open_network("torchvision:squeezenet1_1").notes[0]


def test_preprocessing_equals_torchvisions(tmp_path):
    image = Image.open(picture(tmp_path / "a.png", 301, 257)).convert("RGB")
    normalise = transforms.Normalize(IMAGENET.mean, IMAGENET.std)
    chain = [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), normalise]
    assert torch.allclose(IMAGENET(image), transforms.Compose(chain)(image), atol=1e-6)
    half = transforms.Normalize((0.5,) * 3, (0.5,) * 3)
    chain = [transforms.Resize((224, 224)), transforms.ToTensor(), half]
    assert torch.allclose(HALF(image), transforms.Compose(chain)(image), atol=1e-6)


@pytest.mark.parametrize("name", ["mobilenet_v2", "inception_v3", "vit_b_16", "efficientnet_b4"])
def test_preprocessing_follows_the_published_weights(tmp_path, name):
    image = Image.open(picture(tmp_path / "a.png", 640, 420)).convert("RGB")
    preset = next(iter(models.get_model_weights(name))).transforms()
    ours, theirs = preprocessing_for(f"torchvision:{name}")(image), preset(image)
    assert ours.shape == theirs.shape
    # torchvision scales after resizing on tensors and rounds elsewhere: equal to a grey level
    assert (ours - theirs).abs().max() < 2 / 255 / 0.22


@pytest.mark.parametrize("name", ["fcn_resnet50", "fasterrcnn_resnet50_fpn", "ssd300_vgg16"])
def test_preprocessing_of_segmentation_and_detection(tmp_path, name):
    image = Image.open(picture(tmp_path / "a.png", 640, 420)).convert("RGB")
    preset = next(iter(models.get_model_weights(name))).transforms()
    ours, theirs = preprocessing_for(f"torchvision:{name}")(image), preset(image)
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < 2 / 255 / 0.22


@pytest.mark.parametrize(("name", "size"), [("r3d_18", (112, 112)), ("mvit_v1_b", (224, 224))])
def test_preprocessing_of_video(name, size):
    given, preset = preprocessing_for(f"torchvision:{name}"), next(iter(models.get_model_weights(name))).transforms()
    assert given.size == size == tuple(preset.crop_size)
    assert given.mean == tuple(preset.mean)


def test_what_a_network_takes():
    assert open_network("torchvision:alexnet").takes == "batch"
    assert open_network("torchvision:ssdlite320_mobilenet_v3_large").takes == "images"
    assert open_network("torchvision:r3d_18").takes == "clips"
    assert open_network(torch.nn.Sequential(torch.nn.Conv1d(2, 3, 3))).takes == "series"
    model = torch.nn.Sequential(torch.nn.Conv3d(3, 4, 3))
    assert open_network(model).preprocessing == CLIPS


def test_photos_have_the_type_of_the_parameters(photo):
    network = open_network(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)).bfloat16())
    assert batch_of(network, photo)[0].dtype == torch.bfloat16
    assert run(network, batch_of(network, photo)[0]).dtype == torch.bfloat16


def test_preprocessing_can_be_set_and_is_printed(run, code, photo):
    ran = run(
        "features", f"{code}:small", photo, "--resize", 40, "--crop", "32x24", "--mean", "0,0,0", "--std", "1,1,1"
    )
    assert ran.code == 0
    assert "preprocessing: resize 40 (bilinear); centre crop 32 x 24; mean 0, 0, 0; std 1, 1, 1" in ran.err
    assert run("features", f"{code}:small", photo, "--mean", "a").code == 2
    assert run("features", f"{code}:small", photo, "--size", "0").code == 2
    assert run("features", f"{code}:small", photo, "--std", "0,1,1").code == 2
    assert run("features", f"{code}:small", photo, "--mean", "0.5").code == 2


def test_preprocessing_survives_json():
    for one in (HALF, IMAGENET, Preprocessing(None, None, (0.5,), (0.2,))):
        assert Preprocessing.from_json(json.loads(json.dumps(one.to_json()))) == one


@pytest.mark.parametrize("name", ["layerscope:alexnet", "torchvision:vgg16_bn", "torchvision:densenet121"])
def test_the_index_agrees_with_what_is_installed(name):
    assert signatures()[name] == shapes_of(unbuilt(name).state_dict())


def test_no_weights_are_made_where_another_tool_has_wrapped_the_functions_of_torch(monkeypatch):
    made = torch.empty
    monkeypatch.setattr(torch, "empty", functools.wraps(made)(lambda *args, **kwargs: made(*args, **kwargs)))
    assert all(one.is_meta for one in unbuilt("layerscope:alexnet").parameters())


def test_identify():
    resnet = shapes_of(unbuilt("torchvision:resnet50", 12).state_dict())
    assert str(identify(resnet)) == "torchvision:resnet50, 12 classes, strict"
    trunk = {key: shape for key, shape in resnet.items() if not key.startswith("fc.")}
    assert str(identify(trunk)) == "torchvision:resnet50, 265 of 267 tensors"
    vgg = shapes_of(unbuilt("torchvision:vgg16_bn").state_dict())
    vgg = {k[9:]: s for k, s in vgg.items() if k.startswith("features.")}
    assert identify(vgg).part == "features"
    assert identify({"nothing.weight": (3, 3)}) is None
    assert identify({}) is None


def test_transfer_copies_what_fits(tmp_path):
    torch.manual_seed(0)
    source, target = build("torchvision:resnet18", 3), build("torchvision:resnet18", 7)
    torch.save(source.state_dict(), tmp_path / "a.pth")
    copied, left = transfer(target, str(tmp_path / "a.pth"))
    assert left == ["fc.weight", "fc.bias"]
    assert copied == 100
    assert torch.equal(target.conv1.weight, source.conv1.weight)
    with pytest.raises(NetworkError, match="does not fit"):
        transfer(AlexNet(3), str(tmp_path / "a.pth"))


def test_a_gray_network_gets_a_gray_image(tmp_path):
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Flatten())
    network = open_network(model)
    tensor = network.preprocessing(Image.open(picture(tmp_path / "a.png", 300, 300)).convert("RGB"))
    assert tensor.shape == (1, 224, 224)
    assert np.isfinite(tensor.numpy()).all()


def test_a_file_with_an_equals_sign_in_its_name_is_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("epoch=9-step=100.ckpt", "lr=0.01/best.pth"):
        Path(name).parent.mkdir(exist_ok=True)
        torch.save(build("torchvision:squeezenet1_1").state_dict(), name)
        assert open_network(name).subject == f"torchvision:squeezenet1_1={name}"
    with pytest.raises(UsageError, match="is the name of no network; write torchvision:squeezenet1_1"):
        open_network(f"squeezenet1_1={name}")


def test_what_images_may_be_given_as(tmp_path):
    model = torch.nn.Conv2d(3, 4, 3)
    paths = [picture(tmp_path / name, 30, 30) for name in ("a.png", "b.png")]
    for images in (tmp_path.glob("*.png"), set(paths), map(str, paths)):
        record = layerscope.features(model, images)
        assert sorted(one.name for one in record.pictures) == ["a.png", "b.png"]
    for images in (np.zeros((1, 3, 8, 8), np.float32), 7):
        with pytest.raises(UsageError, match="is not taken; give a tensor"):
            layerscope.features(model, images)


def test_arguments_in_a_mapping_that_is_no_dict():
    class Named(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Linear(3, 2)

        def forward(self, values):
            return self.fc(values)

    assert list(layerscope.features(Named(), UserDict(values=torch.ones(2, 3))).entries) == ["fc"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_zeros_are_of_the_networks_type(dtype):
    network = open_network(torch.nn.Conv2d(3, 4, 3).to(dtype))
    assert run(network, zeros(network)).dtype == run(network, zeros(network, "3x8x8")).dtype == dtype


def test_what_a_hook_of_ours_says_is_not_said_to_be_the_networks():
    network = open_network(torch.nn.Conv2d(3, 4, 3))

    def refuse(*_):
        raise UsageError("too small; give larger images")

    network.model.register_forward_hook(refuse)
    with pytest.raises(UsageError, match=r"^too small; give larger images$"):
        run(network, torch.zeros(1, 3, 8, 8))
