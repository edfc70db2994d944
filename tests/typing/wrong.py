"""What a type checker has to refuse: each line with the error that mypy gives for it. Never run."""

from __future__ import annotations

import layerscope

record = layerscope.weights("AlexNet.pth", bins="many")  # expect: arg-type
means = record["conv1"].columns.mean  # expect: union-attr
layerscope.load(3)  # expect: arg-type
layerscope.features("AlexNet.pth")  # expect: call-arg
nothing = layerscope.nothing  # expect: attr-defined
record.save()  # expect: call-arg
record.to_png("pictures", range="pixel")  # expect: arg-type
