#!/usr/bin/env python3
"""Checks that src/brick keeps to the table of folders in ARCHITECTURE.md, from the #include lines themselves.

usage: tools/check_layers.py [ROOT]       default: this checkout
       tools/check_layers.py --self-test  breaks each rule in a small made-up tree and sees whether it is noticed

Exit status 0 if every rule holds, 1 with one line a violation on standard error.
"""

import re
import sys
import tempfile
from pathlib import Path

SOURCES = {".h", ".hh", ".hpp", ".inl", ".inc", ".ipp", ".cc", ".cpp", ".cxx"}
HEADERS = {".h", ".hh", ".hpp"}

# Modules that may meet in model/ and in pipeline/ only, whatever the table says.
STRANGERS = ("prune", "train", "eval")

# Library: (how its headers begin, its CMake targets, folders that may use it).
RESERVED = {
    "oneDNN": (("oneapi/dnnl/", "dnnl.", "dnnl_"), ("dnnl",), {"kernels"}),
    "Highway": (("hwy/",), ("hwy::hwy",), {"kernels"}),
    "Eigen": (("Eigen/", "unsupported/Eigen/"), ("Eigen3::Eigen",), {"prune", "federate"}),
    "OpenSSL": (("openssl/",), ("OpenSSL::Crypto", "OpenSSL::SSL"), {"base"}),
    "libarchive": (("archive.h", "archive_entry.h"), ("LibArchive::LibArchive",), {"io"}),
    "PCRE2": (("pcre2",), ("PCRE2::8",), {"text"}),
    "toml++": (("toml++/", "toml.h"), ("tomlplusplus::tomlplusplus",), {"pipeline", "cli"}),
    "CLI11": (("CLI/", "CLI11.hpp"), ("CLI11::CLI11",), {"pipeline", "cli"}),
}
WITHOUT_JSON = {"base", "tensor", "kernels"}
JSON_TARGET = "nlohmann_json::nlohmann_json"

INCLUDE = re.compile(r"""^[ \t]*#[ \t]*include[ \t]*(?:"([^"]+)"|<([^>]+)>)""", re.MULTILINE)
INTRINSICS = re.compile(r"(?:[a-z]*mmintrin|immintrin|x86intrin|arm_neon|arm_sve)\.h")


def read_table(text):
    """{folder: [folders it includes]} in the table's order, from the table headed folder | one line | includes."""
    table = {}
    inside = False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.lstrip().startswith("|"):
            inside = False
        elif len(cells) == 3 and cells[1:] == ["one line", "includes"]:
            inside = True
        elif inside and not set(cells[0]) <= set("-: "):
            folder = cells[0].strip("`").rstrip("/")
            names = re.findall(r"[a-z_][a-z0-9_]*", cells[2])
            table[folder] = names
    return table


def closure(table):
    """{folder: set of folders it may include, itself among them}; the table lists a folder after what it uses."""
    reach = {}
    for folder, direct in table.items():
        reach[folder] = {folder}.union(*(reach.get(name, {name}) for name in direct))
    return reach


def check_table(table):
    seen = set()
    for folder, direct in table.items():
        for name in direct:
            if name not in seen:
                yield "ARCHITECTURE.md: %s/ includes %s, which is no folder above it in the table" % (folder, name)
        seen.add(folder)
    for folder, reach in closure(table).items():
        for name in STRANGERS:
            if folder in STRANGERS and name != folder and name in reach:
                yield "ARCHITECTURE.md: %s/ may not include %s/; they meet in model/ and pipeline/" % (folder, name)


def check_includes(where, module, allowed, text, is_test=False):
    for match in INCLUDE.finditer(text):
        path = match[1] or match[2]
        line = "%s:%d" % (where, text.count("\n", 0, match.start()) + 1)
        parts = path.split("/")
        if parts[0] == "brick":
            if len(parts) < 3:
                yield "%s: %s is in no folder of src/brick" % (line, path)
            elif parts[1] not in allowed:
                yield "%s: %s/ may not include %s (allowed: %s)" % (
                    line, module, path, " ".join(sorted(allowed - {module})) or "nothing else")  # fmt: skip
        elif is_test:
            continue  # tests may use any library and their own helpers
        elif match[1]:
            yield '%s: include "%s" from the root of src/, as "brick/…"' % (line, path)
        for library, (prefixes, _, folders) in RESERVED.items():
            if not is_test and path.startswith(prefixes) and module not in folders:
                yield "%s: %s is for %s only" % (line, library, " and ".join(sorted(f + "/" for f in folders)))
        if not is_test and path.startswith("nlohmann/") and module in WITHOUT_JSON:
            yield "%s: %s/ knows no JSON" % (line, module)
        if not is_test and INTRINSICS.fullmatch(path) and module != "kernels":
            yield "%s: vector intrinsics are for kernels/ only" % line


def check_header(where, text):
    if "#pragma once" in text:
        return
    # Highway's per-target headers are read once for each instruction set and have its toggled guard instead.
    if where.endswith("-inl.h") and "HWY_TARGET_TOGGLE" in text:
        return
    yield "%s: #pragma once is missing" % where


def check_sources(root, table):
    source = root / "src" / "brick"
    reach = closure(table)
    folders = {path.name for path in source.iterdir() if path.is_dir() and any(path.iterdir())}
    for name in sorted(folders - set(table)):
        yield "src/brick/%s/: not in the table of ARCHITECTURE.md" % name
    for name in sorted(set(table) - folders):
        yield "ARCHITECTURE.md: %s/ is in the table, but src/brick/%s/ is not there" % (name, name)
    for path in sorted(source.rglob("*")):
        if path.suffix not in SOURCES:
            continue
        where = path.relative_to(root).as_posix()
        parts = path.relative_to(source).parts
        text = path.read_text(encoding="utf-8", errors="replace")
        if len(parts) == 1:
            yield "%s: belongs into one of the folders" % where
        elif parts[0] in table:
            yield from check_includes(where, parts[0], reach[parts[0]], text)
        if path.suffix in HEADERS:
            yield from check_header(where, text)
    for path in sorted((root / "tests").rglob("*")):
        module = path.relative_to(root / "tests").parts[0]
        if path.suffix in SOURCES and module in table:
            where = path.relative_to(root).as_posix()
            text = path.read_text(encoding="utf-8", errors="replace")
            yield from check_includes(where, "tests/" + module, reach[module] | {"tests/" + module}, text, is_test=True)


def cmake_words(text):
    return re.sub(r"#[^\n]*", "", text).replace('"', " ").split()


def check_cmake(root, table):
    text = re.sub(r"#[^\n]*", "", (root / "CMakeLists.txt").read_text())
    order = []
    for arguments in re.findall(r"\bbrick_module\s*\(([^)]*)\)", text):
        module, *words = cmake_words(arguments)
        order.append(module)
        section, found = None, {"DEPS": [], "USES": [], "PRIVATE": []}
        for word in words:
            if word in found:
                section = word
            elif section:
                found[section].append(word)
        if module not in table:
            yield "CMakeLists.txt: brick_module(%s) is not in the table of ARCHITECTURE.md" % module
            continue
        if set(found["DEPS"]) != set(table[module]):
            yield "CMakeLists.txt: brick_module(%s) has DEPS %s, ARCHITECTURE.md says %s" % (
                module, " ".join(found["DEPS"]) or "none", " ".join(table[module]) or "none")  # fmt: skip
        linked = set(found["USES"] + found["PRIVATE"])
        for library, (_, targets, folders) in RESERVED.items():
            if linked & set(targets) and module not in folders:
                yield "CMakeLists.txt: %s/ links %s, which is for %s only" % (module, library, " ".join(sorted(folders)))
        if JSON_TARGET in linked and module in WITHOUT_JSON:
            yield "CMakeLists.txt: %s/ links a JSON library" % module
    expected = [name for name in table if name != "cli"]  # cli/ is the command, not a library
    if sorted(order) != sorted(expected):
        yield "CMakeLists.txt: modules are %s, ARCHITECTURE.md has %s" % (" ".join(order), " ".join(expected))

    command = root / "cmake" / "module.cmake"
    linked = re.search(r"target_link_libraries\s*\(\s*brick\s+([^)]*)\)", command.read_text())
    names = {word[len("brick_"):] for word in cmake_words(linked[1]) if word.startswith("brick_")} if linked else set()
    if "cli" in table and names - {"flags"} != set(table["cli"]):
        yield "cmake/module.cmake: brick links %s, ARCHITECTURE.md says that cli/ includes %s" % (
            " ".join(sorted(names - {"flags"})) or "no module", " ".join(table["cli"]))  # fmt: skip


def check(root):
    """Every violation in the tree at `root`, one line each."""
    table = read_table((root / "ARCHITECTURE.md").read_text())
    if not table:
        return ["ARCHITECTURE.md: no table headed | folder | one line | includes |"]
    return [*check_table(table), *check_sources(root, table), *check_cmake(root, table)]


# ---- The self-test: a made-up tree that keeps every rule, and edits of it that break one each. ----

HEALTHY = {
    "ARCHITECTURE.md": (
        "# Layers\n\n| `src/brick/…` | one line | includes |\n| --- | --- | --- |\n"
        "| `base/` | errors | – |\n| `kernels/` | loops | base |\n| `model/` | layers | kernels |\n"
        "| `prune/` | prunes | model |\n| `train/` | trains | model |\n| `eval/` | scores | model |\n"
        "| `pipeline/` | jobs | prune train eval |\n| `cli/` | command | pipeline |\n\n"
        "| other | table |\n| --- | --- |\n| nowhere/ | base |\n"
    ),
    "CMakeLists.txt": (
        "brick_module(base USES fmt::fmt OpenSSL::Crypto)\nbrick_module(kernels DEPS base USES dnnl)  # note (x)\n"
        "brick_module(model DEPS kernels PRIVATE nlohmann_json::nlohmann_json)\n"
        "brick_module(prune DEPS model\n             PRIVATE Eigen3::Eigen)\nbrick_module(train DEPS model)\n"
        "brick_module(eval DEPS model)\nbrick_module(pipeline DEPS prune train eval)\n"
    ),
    "cmake/module.cmake": "target_link_libraries(brick PRIVATE brick_pipeline CLI11::CLI11 brick_flags)\n",
    "src/brick/base/error.h": "#pragma once\n#include <string>\n",
    "src/brick/base/hash.cc": '#include "brick/base/error.h"\n#include <openssl/evp.h>\n',
    "src/brick/kernels/gemm.cc": '#include <oneapi/dnnl/dnnl.hpp>\n#include "brick/base/error.h"\n',
    "src/brick/kernels/norm-inl.h": "#if defined(A) == defined(HWY_TARGET_TOGGLE)\n#include <hwy/highway.h>\n#endif\n",
    "src/brick/model/model.h": '#pragma once\n#include "brick/base/error.h"\n#include "brick/kernels/gemm.h"\n',
    "src/brick/prune/wanda.cc": '#include <Eigen/Dense>\n#include "brick/model/model.h"\n',
    "src/brick/train/trainer.cc": '// #include "brick/prune/wanda.h"\n#include "brick/model/model.h"\n',
    "src/brick/eval/loss.cc": '#include "brick/base/error.h"\n',
    "src/brick/pipeline/run.cc": '#include "brick/prune/wanda.h"\n#include "brick/eval/loss.h"\n#include <toml++/toml.h>\n',
    "src/brick/cli/main.cc": '#include <CLI/CLI.hpp>\n#include "brick/pipeline/run.h"\n#include "brick/base/error.h"\n',
    "tests/model/model_test.cc": '#include <gtest/gtest.h>\n#include "brick/model/model.h"\n#include "model/tiny.h"\n',
}

# (file, text replaced, its replacement, what the report must say); no text replaced: appended.
BREAKS = [
    ("src/brick/base/error.h", "", '#include "brick/model/model.h"\n', "src/brick/base/error.h:3: base/ may not include"),
    ("src/brick/model/model.h", "", '#  include  "brick/prune/wanda.h"\n', "model/ may not include brick/prune/wanda.h"),
    ("src/brick/model/model.h", "", "#include <brick/eval/loss.h>\n", "model/ may not include brick/eval/loss.h"),
    ("src/brick/train/trainer.cc", "// #include", "#include", "train/ may not include brick/prune/wanda.h"),
    ("src/brick/eval/loss.cc", "", '#include "brick/train/trainer.h"\n', "eval/ may not include brick/train"),
    ("src/brick/eval/loss.cc", "", '#include "brick/nowhere/x.h"\n', "eval/ may not include brick/nowhere"),
    ("src/brick/eval/loss.cc", "", '#include "loss.h"\n', "from the root of src/"),
    ("src/brick/eval/loss.cc", "", '#include "../train/trainer.h"\n', "from the root of src/"),
    ("src/brick/eval/loss.cc", "", "#include <Eigen/Dense>\n", "Eigen is for federate/ and prune/ only"),
    ("src/brick/model/model.h", "", "#include <oneapi/dnnl/dnnl.hpp>\n", "oneDNN is for kernels/ only"),
    ("src/brick/model/model.h", "", "#include <hwy/highway.h>\n", "Highway is for kernels/ only"),
    ("src/brick/model/model.h", "", "#include <openssl/evp.h>\n", "OpenSSL is for base/ only"),
    ("src/brick/model/model.h", "", "#include <toml++/toml.h>\n", "toml++ is for cli/ and pipeline/ only"),
    ("src/brick/prune/wanda.cc", "", "#include <CLI/CLI.hpp>\n", "CLI11 is for cli/ and pipeline/ only"),
    ("src/brick/prune/wanda.cc", "", "#include <pcre2.h>\n", "PCRE2 is for text/ only"),
    ("src/brick/prune/wanda.cc", "", "#include <immintrin.h>\n", "intrinsics are for kernels/ only"),
    ("src/brick/kernels/gemm.cc", "", "#include <nlohmann/json.hpp>\n", "kernels/ knows no JSON"),
    ("src/brick/model/model.h", "#pragma once", "", "src/brick/model/model.h: #pragma once"),
    ("src/brick/model/model-inl.h", "", "int x;\n", "model-inl.h: #pragma once"),
    ("src/brick/stray.cc", "", "\n", "src/brick/stray.cc: belongs into"),
    ("src/brick/extra/x.cc", "", "\n", "src/brick/extra/: not in the table"),
    ("tests/model/model_test.cc", "", '#include "brick/eval/loss.h"\n', "tests/model/ may not include brick/eval/loss.h"),
    ("CMakeLists.txt", "eval DEPS model", "eval DEPS model train", "brick_module(eval) has DEPS model train"),
    ("CMakeLists.txt", "brick_module(eval DEPS model)", "", "CMakeLists.txt: modules are"),
    ("CMakeLists.txt", "train DEPS model", "train DEPS model USES dnnl", "train/ links oneDNN"),
    ("CMakeLists.txt", "USES dnnl", "USES nlohmann_json::nlohmann_json", "kernels/ links a JSON library"),
    ("cmake/module.cmake", "brick_pipeline", "brick_pipeline brick_eval", "brick links eval pipeline"),
    ("ARCHITECTURE.md", "| base |\n| `model/`", "| model |\n| `model/`", "kernels/ includes model, which is no folder above"),
    ("ARCHITECTURE.md", "scores | model |", "scores | model train |", "eval/ may not include train/; they meet"),
    ("ARCHITECTURE.md", "| `cli/`", "| `gone/` | x | base |\n| `cli/`", "src/brick/gone/ is not there"),
    ("ARCHITECTURE.md", "one line", "two lines", "no table headed"),
]  # fmt: skip


def self_test():
    failures = []

    def report_of(files):
        with tempfile.TemporaryDirectory() as folder:
            for name, text in files.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            return check(Path(folder))

    for line in report_of(HEALTHY):
        failures.append("the healthy tree is refused: " + line)
    for name, old, new, expected in BREAKS:
        before = HEALTHY.get(name, "")
        after = before.replace(old, new) if old else before + new
        assert after != before, "an edit of %s that changes nothing" % name
        report = report_of({**HEALTHY, name: after})
        if not any(expected in line for line in report):
            failures.append("not noticed in %s: %r; reported: %s" % (name, new or old, report))
    for failure in failures:
        print(failure, file=sys.stderr)
    if not failures:
        print("check_layers: %d broken trees noticed, the healthy one accepted" % len(BREAKS))
    return 1 if failures else 0


def main(arguments):
    if arguments == ["--self-test"]:
        return self_test()
    if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
        print(__doc__.strip())
        return 0 if arguments in (["-h"], ["--help"]) else 2
    root = Path(arguments[0] if arguments else Path(__file__).resolve().parent.parent)
    violations = check(root)
    for line in violations:
        print(line, file=sys.stderr)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
