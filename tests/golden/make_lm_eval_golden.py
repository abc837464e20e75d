"""Makes tests/golden/lm_eval/: a few invented questions in the format of each task's files, and lm_eval.json, what
lm-evaluation-harness makes of them: prompts, continuations and, on the small random model of tests/e2e/tiny_model.py,
their log-likelihoods, acc and acc_norm, without examples and with two. tests/eval/lm_eval_parity_test.cc and
tests/e2e/eval_tasks_test.py read it. Needs lm_eval, torch and transformers.

    python tests/golden/make_lm_eval_golden.py
"""

import json
import pathlib
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE / "lm_eval"
sys.path[:0] = [str(HERE.parent / "e2e"), str(HERE.parent.parent / "experiments")]

import lm_eval  # noqa: E402
import lm_eval_local  # noqa: E402
import tiny_model  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402

LIMIT_BYTES = 1 << 20  # of the folder
SHOTS = (0, 2)


def instruction(question: str, label: str, options: list[str], gap: str, ask: str, gold: int) -> dict:
    name = label.lower()
    listed = " ".join(f"{label}{i}: {option}" for i, option in enumerate(options, 1))
    return {"instruction": f"{ask}{question}\n\n{listed}{gap}Answer format: " + "/".join(f"{name}{i + 1}" for i in range(len(options))),
            "input": "", "output": f"the correct answer is {name}{gold + 1}", "answer": f"{name}{gold + 1}"}


def choice(question: str, options: list[str], gold: int) -> dict:
    return instruction(question, "Answer", options, "\n\n", "Please choose the correct answer to the question: ", gold)


def blank(sentence: str, options: list[str], gold: int) -> dict:
    return instruction(sentence, "Option", options, " ", "Please choose the correct answer to fill in the blank to complete the given sentence: ", gold)


def closed(question: str, answer: bool) -> dict:
    word = "true" if answer else "false"
    return {"instruction": f"Please answer the following question with true or false, question: {question}\n\nAnswer format: true/false",
            "input": "", "output": f"the correct answer is {word}", "answer": word}


SCIENCE = [
    choice("Which of these is a liquid at 20 °C?", ["iron", "water", "salt", "glass"], 1),
    choice("A kettle sings. What moves the lid?", ["steam", "the flame itself", "light"], 0),
    choice("Grüne Blätter make sugar from", ["soil", "moonlight", "carbon dioxide and water", "stones", "wind"], 2),
    choice("What keeps 12 planets?\nNothing known.", ["a star", "rope"], 0),
]
FILES = {
    "piqa/valid.jsonl": [{"goal": "How do I cool soup?", "sol1": "Blow on it. ", "sol2": "Blow  it up."},
                         {"goal": "dry a wet shoe ", "sol1": "paper inside, “overnight”", "sol2": "water inside"},
                         {"goal": "Find north", "sol1": "Use a compass.", "sol2": "Use a comb."}],
    "piqa/valid-labels.lst": [0, 0, 0],
    "mc_eval/ARC-Easy/test.json": SCIENCE, "mc_eval/ARC-Easy/train.json": SCIENCE[::-1],
    "mc_eval/ARC-Challenge/test.json": SCIENCE[1:], "mc_eval/ARC-Challenge/train.json": SCIENCE,
    "mc_eval/openbookqa/test.json": [choice("A cat that is fed well will", ["sleep", "rust"], 0), choice("Fog is likely around:", ["a marsh", "a desert"], 0),
                                     choice("The lamp went out because", ["it was loved", "its wire broke"], 1)],
    "mc_eval/social_i_qa/test.json": [choice("Ada lent Bo her bike. How would Bo feel?", ["grateful", "like a bike", "cold"], 0),
                                      choice("Bo broke it. What will Bo do next?", ["sing", "say sorry", "sleep for 3 days"], 1),
                                      choice("Ada forgave him. Why did Ada do this?", ["to be kind", "to be tall", "to eat"], 0)],
    "mc_eval/boolq/test.json": [closed("is ice colder than steam?", True), closed("can a stone swim?", False), closed("is 7 a prime number?", True)],
    "mc_eval/winogrande/test.json": [blank("The cup fell off the shelf because the _ was too full.", ["cup", "shelf"], 1),
                                     blank("Ann beat Bea at chess, so _ was sad.", ["Ann", "Bea"], 1),
                                     blank("He paid the baker but the _ gave nothing back.", ["baker", "coin"], 0)],
    "hellaswag/hellaswag_val_full.txt": ["Skiing: A man stands on a hill. he", 1, "eats the hill.", "skis down.", "is a hill.", "reads 12 books.",
                                         "Baking bread: She kneads the dough, then she", 0, "lets it rest.", "lets it go home.", "sings to it,  twice.", "is dough.",
                                         "How to sleep: Go to bed. Close your eyes.", 3, "Open a shop.", "Run.", "Call [a friend].", "Breathe slowly."],
    "glue_sst2/test.tsv": ["sentence\tlabel", "a \"fine\" and warm film . \t1", "it 's dull \t0", "not bad at all \t1"],
    "glue_sst2/train.tsv": ["sentence\tlabel", "hollow \t0", "a joy \t1", "it 's dull \t0"],
    "glue_rte_wnli/RTE/official_dev.tsv": ["index\tsentence1\tsentence2\tlabel", "7\tThe mill burnt in 1901.\tA mill burnt.\tentailment",
                                           "9\tTwo ships left.\tOne ship sank.\tnot_entailment"],
    "glue_rte_wnli/RTE/train.tsv": ["index\tsentence1\tsentence2\tlabel", "0\tIt rained.\tIt was wet.\tentailment", "1\tHe ran.\tHe won.\tnot_entailment"],
    "glue_rte_wnli/WNLI/test.tsv": ["index\tsentence1\tsentence2\tlabel", "0\tThe pin left a hole in the carrot.\tThe carrot had a hole.\t1",
                                    "1\tShe thanked Kim, for she had helped.\tShe had thanked.\t0"],
    "glue_rte_wnli/WNLI/train.tsv": ["index\tsentence1\tsentence2\tlabel", "0\tAl saw Bo, who waved.\tAl waved.\t0", "1\tThe lid fits the pot. It is small.\tThe lid is small.\t1"],
    "mmlu/test/number_theory_test.csv": ['"Which is prime, ""and"" odd?\nChoose. ",4,7,9,"1,000",B', "2 + 2 =,3,4,5,22,B"],
    "mmlu/dev/number_theory_dev.csv": ["Half of 10?,2,5,10,20,B", '"3, 6, 9: next?",10,11,12,13,C'],
    "mmlu/test/tides_test.csv": ["What pulls the sea?,the moon,a rope,birds,salt,A"],
    "mmlu/dev/tides_dev.csv": ["The sea is,dry,wet,square,loud,B", "Waves come from,wind,milk,trees,ink,A"],
}  # fmt: skip


def write_files() -> None:
    for name, rows in FILES.items():
        path = OUT / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".json"):
            text = json.dumps(rows, indent=1, ensure_ascii=False)
        else:
            text = "\n".join(json.dumps(row, ensure_ascii=False) if isinstance(row, dict) else str(row) for row in rows)
        path.write_text(text + "\n", encoding="utf-8")


def harness_tasks(name: str, shots: int) -> dict:
    if name == "mmlu":  # the subjects are invented, so the harness has no files of them: anatomy's, with another description
        config = lm_eval_local.load_yaml(lm_eval_local.HARNESS / lm_eval_local.TASK_FILES["mmlu"].format("anatomy"))
        return {subject: lm_eval_local.task_object(f"mmlu_{subject}", config | {"description": config["description"].replace(
            "anatomy", subject.replace("_", " "))}, test, dev, shots) for subject, (test, dev) in lm_eval_local.mmlu(OUT / "data").items()}
    return lm_eval_local.tasks(OUT / "data", name, shots)


def main() -> None:
    write_files()
    golden = {"versions": {"lm_eval": lm_eval.__version__, "torch": torch.__version__, "transformers": transformers.__version__}, "runs": []}
    with tempfile.TemporaryDirectory() as folder:
        model = HFLM(pretrained=str(tiny_model.write_model(pathlib.Path(folder) / "model")), dtype="float32", device="cpu", batch_size=1)
        for name in lm_eval_local.TASK_FILES:
            for shots in SHOTS:
                run = {"task": name, "num_fewshot": shots, "items": []}
                for subject, task in harness_tasks(name, shots).items():
                    for sample in lm_eval_local.samples(model, task):
                        run["items"].append({
                            "subject": subject, "row": sample["doc_id"], "prompts": [pair[0] for pair in sample["arguments"]],
                            "continuations": [pair[1] for pair in sample["arguments"]],
                            "log_likelihoods": [round(float(resp[0]), 6) for resp in sample["filtered_resps"]],
                            **{metric: sample[metric] for metric in ("acc", "acc_norm") if metric in sample}})
                golden["runs"].append(run)
    (OUT / "lm_eval.json").write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    size = sum(path.stat().st_size for path in OUT.rglob("*") if path.is_file())
    if size > LIMIT_BYTES:
        sys.exit(f"{OUT} has {size} bytes, more than {LIMIT_BYTES}")
    print(f"{OUT}: {size} bytes")


if __name__ == "__main__":
    main()
