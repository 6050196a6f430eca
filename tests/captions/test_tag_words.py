"""Which tokens a caption is drawn to: the words of its tags that it does not hold yet."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from raymtr.captions.learning.pairs import read_pairs
from raymtr.captions.learning.pretrain import train_tokenizer
from raymtr.captions.writing.tag_words import IN_VLLM, UnwrittenTagWords, extra_args, tag_words
from raymtr.captions.writing.tag_words_batch import BEFORE, UnwrittenTagWordsBatch

SLOW, PIANO, PIANIST = [5], [7, 8, 9], [7, 8, 4]


def test_a_word_is_drawn_to_until_it_is_written():
    words = UnwrittenTagWords([[SLOW], [PIANO]])
    assert words.after([]) == [5, 7]
    assert words.after([1, 5]) == [7], "slow is written"
    assert words.after([7]) == [7, 8], "a word begun goes on"
    assert words.after([8]) == [7, 9]
    assert words.after([9]) == [], "nothing is left"
    assert words.after([5, 7, 8]) == [], "and said again, it is no news"


def test_a_word_that_is_broken_off_stays_open():
    words = UnwrittenTagWords([[PIANO]])
    assert words.after([7, 8, 2]) == [7]
    assert words.after([7, 7]) == [7, 8], "it may begin at any token"


def test_two_words_that_begin_alike_are_distinguished():
    words = UnwrittenTagWords([[PIANO], [PIANIST]])
    assert words.after([7, 8]) == [4, 7, 9]
    assert words.after([4]) == [7]
    assert words.after([7, 8]) == [7, 9]


def test_any_spelling_ends_a_word_but_it_is_drawn_to_its_own():
    words = UnwrittenTagWords([[SLOW, [6]]])
    assert words.after([]) == [5]
    assert words.after([6]) == []


def test_words_are_spelt_as_inside_a_sentence(pair_file, small_spec):
    tokenizer = train_tokenizer(read_pairs(pair_file), small_spec.toy)
    found = tag_words(tokenizer, ["slow hi-hat", "Rock and roll", "of"])
    texts = [[tokenizer.decode(spelling) for spelling in spellings] for spellings in found]
    assert texts == [
        [" Rock", " rock"],
        [" hi-hat", " Hi-hat"],
        [" roll", " Roll"],
        [" slow", " Slow"],
    ], "small words are no tags"
    assert tag_words(tokenizer, ["of", "and"]) == tag_words(tokenizer, []) == []


@pytest.mark.slow
def test_vllms_first_runner_is_drawn_to_the_same_tokens():
    pytest.importorskip("vllm", reason="vLLM is not installed here")
    from vllm import SamplingParams
    from vllm.v1.sample.logits_processor import _load_custom_logitsprocs

    [processor_class] = _load_custom_logitsprocs([IN_VLLM.format(runner="V1")])
    processor = processor_class(None, torch.device("cpu"), False)
    asked = SamplingParams(extra_args=extra_args([[SLOW], [PIANO]], 2.0))
    favour = processor.new_req_logits_processor(asked)
    written: list[int] = []
    own = UnwrittenTagWords([[SLOW], [PIANO]])
    for token in [1, 7, 8, 5, 9, 7, 2]:
        scores = favour(written, torch.zeros(10))
        wanted = torch.zeros(10)
        wanted[own.after(written[-1:])] = 2.0
        assert torch.equal(scores, wanted)
        written.append(token)
    assert processor.new_req_logits_processor(SamplingParams()) is None


def some_words(rng: np.random.Generator) -> list[list[list[int]]]:
    """Words of few different tokens, so that they overlap, repeat and contain one another."""
    return [
        [rng.integers(0, 4, rng.integers(1, 5)).tolist() for _ in range(rng.integers(1, 4))]
        for _ in range(rng.integers(0, 5))
    ]


def test_a_batch_of_captions_is_drawn_as_each_alone():
    rng = np.random.default_rng(0)
    batch, captions = UnwrittenTagWordsBatch(6, torch.device("cpu")), {}
    for step in range(300):
        begins = [slot for slot in range(6) if slot not in captions or rng.random() < 0.05]
        asked = {slot: (some_words(rng), float(slot)) for slot in begins}
        captions |= {
            slot: (UnwrittenTagWords(words), [], bias) for slot, (words, bias) in asked.items()
        }
        batch.begin(asked)
        slots = rng.permutation(6)[: rng.integers(1, 7)]
        scores = torch.from_numpy(rng.normal(size=(len(slots), 5))).float()
        tails = torch.full((len(slots), batch.reach), BEFORE)
        wanted = scores.clone()
        for row, slot in enumerate(slots):
            words, written, bias = captions[slot]
            last = written[-batch.reach :]
            tails[row, batch.reach - len(last) :] = torch.tensor(last)
            wanted[row, words.after(written[-1:])] += bias
            written.append(int(rng.integers(0, 5)))
        drawn = batch.favour(scores, torch.from_numpy(slots), tails)
        assert torch.equal(drawn, wanted), f"step {step}"


@pytest.fixture
def on_a_cpu(monkeypatch):
    """vLLM's buffers that want a GPU are its own for a CPU, as its CPU worker has them."""
    pytest.importorskip("vllm", reason="vLLM is not installed here")
    from vllm.v1.worker.cpu import buffer_utils as on_cpu
    from vllm.v1.worker.gpu import buffer_utils as on_gpu

    monkeypatch.setattr(on_gpu, "UvaBuffer", on_cpu.UvaBuffer)


class SecondRunner:
    """vLLM's own loader and request states; what its Triton kernels write is written here."""

    def __init__(self, slots: int) -> None:
        from vllm.v1.worker.gpu.sample.logits_processor import build_custom_logits_processors
        from vllm.v1.worker.gpu.states import RequestState

        self.states = RequestState(slots, 64, 64, 0, 10, torch.device("cpu"))
        names = [IN_VLLM.format(runner="V2")]
        [self.processor] = build_custom_logits_processors(None, self.states, False, names)

    def add(self, name: str, prompt: list[int], params, *, written: Sequence[int] = ()) -> None:
        tokens = [*prompt, *written]
        self.states.add_request(name, len(prompt), tokens, 0, 32)
        slot = self.states.req_id_to_index[name]
        self.processor.add_request(slot, params)
        self.states.all_token_ids.gpu[slot, : len(tokens)] = torch.tensor(tokens)
        self.states.total_len.gpu[slot] = len(tokens)
        self.states.prompt_len.copy_to_uva()
        self.states.prefill_len.copy_to_uva()
        self.processor.apply_staged_writes()

    def scores(self, *names: str) -> torch.Tensor:
        from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext

        slots = np.array([self.states.req_id_to_index[name] for name in names])
        rows = torch.from_numpy(slots).int()
        none = torch.zeros_like(rows)
        context = LogitsContext(rows, rows, slots, none, none, none, slots)
        return self.processor.apply(torch.zeros(len(names), 10), context)

    def write(self, name: str, token: int) -> None:
        slot = self.states.req_id_to_index[name]
        self.states.all_token_ids.gpu[slot, self.states.total_len.gpu[slot]] = token
        self.states.total_len.gpu[slot] += 1


@pytest.mark.slow
@pytest.mark.usefixtures("on_a_cpu")
def test_vllms_second_runner_is_drawn_to_the_same_tokens():
    from vllm import SamplingParams

    runner = SecondRunner(slots=4)
    words = {"a": [[SLOW], [PIANO]], "b": [[PIANIST, SLOW], [[3, 3, 1]]]}
    own = {name: UnwrittenTagWords(spelt) for name, spelt in words.items()}
    last: dict[str, list[int]] = {"a": [], "b": []}
    runner.add("a", [7, 8], SamplingParams(extra_args=extra_args(words["a"], 2.0)))
    runner.add("plain", [1], SamplingParams())
    assert runner.scores("plain").count_nonzero() == 0

    def check(*names: str) -> None:
        wanted = torch.zeros(len(names), 10)
        for row, name in enumerate(names):
            if name in own:
                wanted[row, own[name].after(last[name])] = 2.0
                last[name] = []
        assert torch.equal(runner.scores(*names), wanted)

    check("a", "plain")
    runner.add("b", [1, 2, 3], SamplingParams(extra_args=extra_args(words["b"], 2.0)))
    for one, other in [(1, 3), (7, 3), (8, 3), (5, 1), (9, 7), (7, 8), (2, 4)]:
        for name, token in (("a", one), ("b", other), ("plain", 5)):
            runner.write(name, token)
            last.setdefault(name, []).append(token)
        check("b", "plain", "a")


@pytest.mark.slow
@pytest.mark.usefixtures("on_a_cpu")
def test_vllms_second_runner_continues_with_what_it_interrupted():
    from vllm import SamplingParams

    runner, params = SecondRunner(slots=1), SamplingParams(extra_args=extra_args([[SLOW]], 2.0))
    runner.add("first", [1], params)
    runner.states.remove_request("first")
    runner.add("again", [1], params, written=[SLOW[0], 2, 3])  # preempted, after it said "slow"
    assert runner.scores("again").count_nonzero() == 0
    runner.states.remove_request("again")
    runner.add("new", [SLOW[0]], params)  # in the same slot; the prompt is no caption
    assert runner.scores("new")[0].nonzero().flatten().tolist() == SLOW
