import pytest

from alignkit_rewards import QuestionOnly, R1Zero
from alignkit_rewards.formats import boxed_answer, final_answer, tagged_answer


@pytest.mark.parametrize(
    ("response", "strict", "answer"),
    [
        ("t </think> <answer>4</answer>", True, "4"),
        ("t </think> <answer>4</answer> and then 5", True, "4"),
        ("t </think> <answer>4</answer> <answer>5</answer>", True, "5"),
        ("t </think> <answer>4</answer> <answer>5", True, "4"),  # the last COMPLETE answer
        ("t </think> <answer>4 <answer>5</answer>", True, "5"),
        ("t </think> <answer></answer>", True, ""),
        ("t </think><answer>4</answer>", True, None),
        ("t </think>  <answer>4</answer>", True, None),
        ("t </think>\n<answer>4</answer>", True, None),
        ("t </think><answer>4</answer>", False, "4"),
        ("t </think> \n\n <answer>4</answer>", False, "4"),
        ("t <answer>4</answer> </think>", False, None),
        ("<answer>4</answer>", False, None),
        ("t </think> <answer>4", True, None),
        ("</answer> t </think> <answer>4", True, None),
        ("", True, None),
    ],
)
def test_the_last_complete_answer_of_a_well_formed_response_counts(response, strict, answer):
    assert tagged_answer(response, strict=strict) == answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"so \boxed{5}", "5"),
        (r"so \boxed{5}, no \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"so \boxed{5}, no \boxed{6", "5"),  # the last BALANCED box
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\text{a } b}}}", r"\text{a } b"),
        (r"\boxed {7}", "7"),
        (r"\boxed{", None),
        ("5", None),
    ],
)
def test_the_last_balanced_box_counts(response, answer):
    assert boxed_answer(response) == answer


def test_boxes_are_found_in_linear_time():
    assert boxed_answer(r"\boxed{4" * 20_000) is None
    assert boxed_answer("\\" * 50_000 + r"\boxed{4}" * 5_000) == "4"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("4 </think> <answer> 4 </answer>", "4"),
        ("<answer>4</answer> no <answer>5</answer>", "5"),
        ("<answer> a \n b </answer>", "a b"),
        (r"<answer>\boxed{\frac{1}{2}}</answer>", r"\frac{1}{2}"),
        (r"so \boxed{3} or \boxed{4}", "4"),
        (r"\boxed{4", None),
        ("the answer is 4", None),
        ("<answer> </answer>", None),
    ],
)
def test_final_answers(text, answer):
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "votes"),
    [
        (r"so \boxed{3} or \boxed{4}", {"listed": "3, 4", "last": "4", "agree": None}),
        (r"<answer>\boxed{3}, \boxed{4}</answer>", {"listed": "3, 4", "last": "4", "agree": None}),
        (r"\boxed{3}, that is \boxed{ 3 }", {"listed": "3", "last": "3", "agree": "3"}),
        (r"\boxed{x = \boxed{3}}", {"listed": "3", "last": "3", "agree": "3"}),
        (r"<answer>3</answer>", {"listed": "3", "last": "3", "agree": "3"}),
    ],
)
@pytest.mark.parametrize("component", [R1Zero, QuestionOnly])
@pytest.mark.parametrize("rule", ["listed", "last", "agree"])
def test_samples_vote_for_what_their_boxes_say_together(component, rule, text, votes):
    reward = component(several_boxes=rule).build()
    assert reward.read(text) == votes[rule]
