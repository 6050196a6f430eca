"""Lines that trec_eval reads."""

from raymtr.evaluation import trec


def test_run_lines_have_six_fields_and_falling_scores():
    lines = list(trec.run_lines({"q1": ["b", "a"], "q2": []}, tag="towers"))
    assert lines == ["q1 Q0 b 1 2 towers", "q1 Q0 a 2 1 towers"]


def test_a_run_is_cut_at_its_depth():
    lines = list(trec.run_lines({"q": [f"t{n}" for n in range(1500)]}, tag="x"))
    assert len(lines) == trec.DEPTH
    assert lines[-1].split()[3:5] == ["1000", "1"]


def test_qrels_line_and_back():
    (line,) = trec.qrels_lines({"q1": {"a": 3}})
    assert line == "q1 0 a 3"
    assert trec.parse_qrel(line, "here:1") == ("q1", "a", 3)
