"""lm-evaluation-harness's own tasks on the local files that `brick eval --tasks` reads.

Each task is the harness's task file with another source of documents: the files are read here a second time, with Python's
csv, json and re, into the columns that the harness's data set has. Prompts, targets and scores stay the harness's. What
is overridden besides is said in OVERRIDES. Few-shot examples are the first ones (`first_n`, the harness's sampler for MMLU).
"""

import bz2
import csv
import gzip
import io
import json
import os
import pathlib
import re
import tarfile

import datasets
import lm_eval
import lm_eval.tasks
from lm_eval.api.model import LM
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

HARNESS = pathlib.Path(lm_eval.tasks.__file__).parent

TASK_FILES = {
    "piqa": "piqa/piqa.yaml", "arc_easy": "arc/arc_easy.yaml", "arc_challenge": "arc/arc_challenge.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml", "winogrande": "winogrande/default.yaml", "openbookqa": "openbookqa/openbookqa.yaml",
    "boolq_closed": "super_glue/boolq/default.yaml", "social_iqa": "siqa/siqa.yaml", "sst2": "glue/sst2/default.yaml",
    "rte": "glue/rte/default.yaml", "wnli": "glue/wnli/default.yaml", "mmlu": "mmlu/default/mmlu_{}.yaml",
}  # fmt: skip

# The local files have no passages; HellaSwag's text file is prepared already.
OVERRIDES = {
    "boolq_closed": {"doc_to_text": "Question: {{question}}?\nAnswer:", "should_decontaminate": False},
    "hellaswag": {"process_docs": None},
}


def read(path: pathlib.Path) -> str:
    for candidate, opener in ((path, open), (path.with_name(path.name + ".gz"), gzip.open), (path.with_name(path.name + ".bz2"), bz2.open)):
        if candidate.exists():
            with opener(candidate, "rb") as file:
                return file.read().decode()
    raise FileNotFoundError(path)


def instructions(path: pathlib.Path) -> list[tuple[str, str]]:
    return [(record["instruction"], record["answer"]) for record in json.loads(read(path))]


def questions(path: pathlib.Path) -> list[tuple[str, list[str], int]]:
    rows = []
    for text, answer in instructions(path):
        body = re.fullmatch(r"Please choose the correct answer to the question: (.*)\n\nAnswer format: [^\n]*", text, re.DOTALL)[1]
        question, *options = re.split(r"(?:\n\n| )Answer\d: ", body)
        rows.append((question, options, int(answer.removeprefix("answer")) - 1))
    return rows


def tsv(path: pathlib.Path, labels: list[str]) -> list[dict]:
    rows = list(csv.DictReader(io.StringIO(read(path)), delimiter="\t", quoting=csv.QUOTE_NONE))
    return [{key: value for key, value in row.items() if key not in ("index", "label")} | {"label": labels.index(row["label"])} for row in rows]


def piqa(folder: pathlib.Path) -> list[dict]:
    labels = read(folder / "piqa/valid-labels.lst").split()
    return [json.loads(line) | {"label": int(label)} for line, label in zip(read(folder / "piqa/valid.jsonl").rstrip("\n").split("\n"), labels, strict=True)]


def choice_rows(path: pathlib.Path, column: str) -> list[dict]:
    return [{column: question, "choices": {"text": options, "label": list("ABCDE"[:len(options)])}, "answerKey": "ABCDE"[gold]}
            for question, options, gold in questions(path)]


def hellaswag(folder: pathlib.Path) -> list[dict]:
    lines = read(folder / "hellaswag/hellaswag_val_full.txt").split("\n")[:-1]
    return [{"query": lines[i], "label": lines[i + 1], "choices": lines[i + 2:i + 6]} for i in range(0, len(lines), 6)]


def winogrande(folder: pathlib.Path) -> list[dict]:
    form = re.compile(r"Please choose the correct answer to fill in the blank to complete the given sentence: (.*)\n\n"
                      r"Option1: (.*) Option2: (.*) Answer format: option1/option2")
    rows = []
    for text, answer in instructions(folder / "mc_eval/winogrande/test.json"):
        sentence, option1, option2 = form.fullmatch(text).groups()
        rows.append({"sentence": sentence, "option1": option1, "option2": option2, "answer": answer.removeprefix("option")})
    return rows


def boolq(folder: pathlib.Path) -> list[dict]:
    form = re.compile(r"Please answer the following question with true or false, question: (.*)\?\n\nAnswer format: true/false")
    return [{"question": form.fullmatch(text)[1], "label": ["false", "true"].index(answer)}
            for text, answer in instructions(folder / "mc_eval/boolq/test.json")]


def social_iqa(folder: pathlib.Path) -> list[dict]:
    # The files have context and question in one text; the harness joins them with a space.
    return [{"context": question.split(" ", 1)[0], "question": question.split(" ", 1)[1], "answerA": options[0], "answerB": options[1],
             "answerC": options[2], "label": str(gold + 1)} for question, options, gold in questions(folder / "mc_eval/social_i_qa/test.json")]


def documents(folder: pathlib.Path, task: str) -> tuple[list[dict], list[dict] | None]:
    """Of the test and, where the folder has it, the training file."""
    if task in ("arc_easy", "arc_challenge"):
        place = folder / "mc_eval" / {"arc_easy": "ARC-Easy", "arc_challenge": "ARC-Challenge"}[task]
        return choice_rows(place / "test.json", "question"), choice_rows(place / "train.json", "question")
    if task == "openbookqa":
        return choice_rows(folder / "mc_eval/openbookqa/test.json", "question_stem"), None
    if task == "sst2":
        return tsv(folder / "glue_sst2/test.tsv", ["0", "1"]), tsv(folder / "glue_sst2/train.tsv", ["0", "1"])
    if task == "rte":
        labels = ["entailment", "not_entailment"]
        return tsv(folder / "glue_rte_wnli/RTE/official_dev.tsv", labels), tsv(folder / "glue_rte_wnli/RTE/train.tsv", labels)
    if task == "wnli":
        return tsv(folder / "glue_rte_wnli/WNLI/test.tsv", ["0", "1"]), tsv(folder / "glue_rte_wnli/WNLI/train.tsv", ["0", "1"])
    readers = {"piqa": piqa, "hellaswag": hellaswag, "winogrande": winogrande, "boolq_closed": boolq, "social_iqa": social_iqa}
    return readers[task](folder), None


def mmlu(folder: pathlib.Path) -> dict[str, tuple[list[dict], list[dict]]]:
    """{subject: (test, dev)}."""
    def rows(text: str) -> list[dict]:
        return [{"question": row[0], "choices": row[1:5], "answer": "ABCD".index(row[5])} for row in csv.reader(io.StringIO(text, newline=""))]

    if (folder / "mmlu/test").is_dir():
        tests = {path.name: read(path) for path in (folder / "mmlu/test").glob("*_test.csv")}
    else:
        with tarfile.open(folder / "mmlu/mmlu_test_val_csv.tar.xz") as archive:
            tests = {os.path.basename(member.name): archive.extractfile(member).read().decode()
                     for member in archive if member.name.endswith("_test.csv")}
    subjects = {name.removesuffix("_test.csv"): rows(text) for name, text in sorted(tests.items())}
    return {name: (test, rows(read(folder / f"mmlu/dev/{name}_dev.csv"))) for name, test in subjects.items()}


def task_object(name: str, config: dict, test: list[dict], examples: list[dict] | None, shots: int) -> ConfigurableTask:
    splits = {"test": datasets.Dataset.from_list(test)}
    if examples is not None:
        splits["examples"] = datasets.Dataset.from_list(examples)
    config = config | {
        "task": name, "tag": None, "num_fewshot": shots, "custom_dataset": lambda **_: splits, "training_split": None,
        "validation_split": None, "test_split": "test", "fewshot_split": "test" if examples is None else "examples",
        "fewshot_config": {"sampler": "first_n"}, "dataset_path": None, "dataset_name": None, "metadata": None}
    return ConfigurableTask(config=config)


def samples(model: LM, task: ConfigurableTask, limit: int | None = None) -> list[dict]:
    """The harness's record of each item: its requests, log-likelihoods and metrics."""
    result = lm_eval.evaluate(lm=model, task_dict={"tasks": {task.task_name: task}}, limit=limit, log_samples=True, bootstrap_iters=0)
    return result["samples"][task.task_name]


def tasks(folder: pathlib.Path, name: str, shots: int) -> dict[str, ConfigurableTask]:
    """{subject: task}, the subject "" where the task has none."""
    if name != "mmlu":
        config = load_yaml(HARNESS / TASK_FILES[name]) | OVERRIDES.get(name, {})
        return {"": task_object(name, config, *documents(folder, name), shots)}
    return {subject: task_object(f"mmlu_{subject}", load_yaml(HARNESS / TASK_FILES[name].format(subject)), test, dev, shots)
            for subject, (test, dev) in mmlu(folder).items()}
