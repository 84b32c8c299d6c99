"""The lock: one version each, for every platform, with no trace of the index it came from."""

from typing import Any

from tasks.lock import lock_lines

DIRECT = [
    "torch==2.13.0",
    "onnxruntime-gpu==1.31.1; sys_platform == 'linux'",
    "onnxruntime==1.31.1; sys_platform == 'darwin'",
]


def report(**versions: str) -> dict[str, Any]:
    return {
        "install": [
            {"metadata": {"name": name.replace("_", "-"), "version": version}}
            for name, version in versions.items()
        ]
    }


def test_lines_are_pinned_sorted_and_without_local_suffix() -> None:
    lines = lock_lines(
        report(Torch="2.13.0+cpu", sympy="1.14", twotempo="0.1.0", PyYAML="6.0.3"),
        ["torch==2.13.0"],
        own_name="twotempo",
    )
    assert lines == ["pyyaml==6.0.3", "sympy==1.14", "torch==2.13.0"]


def test_a_package_of_one_platform_keeps_its_marker_and_the_other_is_added() -> None:
    assert lock_lines(report(onnxruntime_gpu="1.31.1"), DIRECT, own_name="twotempo") == [
        'onnxruntime==1.31.1 ; sys_platform == "darwin"',
        'onnxruntime-gpu==1.31.1 ; sys_platform == "linux"',
    ]


def test_what_a_cuda_build_brings_is_left_to_it() -> None:
    found = report(torch="2.13.0", nvidia_cudnn_cu12="9.1", triton="3.5", cuda_bindings="13")
    assert lock_lines(found, ["torch==2.13.0"], own_name="twotempo") == ["torch==2.13.0"]
