"""Conversations with a policy in the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from alignkit import recipe, toml
from alignkit.dialogues import Converses, SampledResponse
from alignkit.document import Document, merge
from alignkit.engine.prompting import end_turns, prompt_of
from alignkit.engine.sampling.generating import generated
from alignkit.engine.sampling.rollouts import serving, with_stops
from alignkit.errors import AlignkitError, Problem, RecipeError, shown
from alignkit.lifecycle.files import write_whole
from alignkit.overrides import typed
from alignkit.plugins import Registry
from alignkit.protocols import Completion, Example, Policy, PromptTemplate, RolloutBackend
from alignkit.run_data.runs import is_run

KINDS = {"policy": "policy", "prompt": "prompt_template", "rollout": "rollout_backend"}
"""Tables of a recipe that a conversation needs, and the kind of each."""
NEW, END = "/new", "/exit"
"""What is typed to begin anew, and to end."""
HELP = f"{NEW} begins another conversation, {END} ends"


@dataclass(frozen=True, slots=True)
class Parts:
    """Who is talked to, and how."""

    policy: Policy
    prompt: PromptTemplate
    rollout: RolloutBackend


def parts_of(model: str, registry: Registry, overrides: Sequence[str]) -> Parts:
    """Return what a run's recipe, or the defaults for a model, and ``overrides`` say.

    Of a run it is the model it ended with, or the best one it kept, with the prompt and sampling
    of its recipe. A model without a run has its chat template, or if it has none its plain text.
    """
    document = typed(["rollout.use=hf"])
    if is_run(Path(model)):
        merge(document, _of_run(Path(model)))
    else:
        merge(document, typed(["policy.use=hf", f"policy.path={json.dumps(model)}"]))
    merge(document, _asked(overrides))
    policy: Policy = _built(document, "policy", registry)
    if "prompt" not in document.table:
        own = getattr(policy.tokenizer, "chat_template", None)
        merge(document, typed([f"prompt.use={'chat' if own else 'question_only'}"]))
    return Parts(policy, *(_built(document, name, registry) for name in ("prompt", "rollout")))


def _asked(overrides: Sequence[str]) -> Document:
    """Return what the command line sets; RecipeError for what a conversation does not read."""
    document = typed(overrides)
    if unread := [name for name in document.table if name not in KINDS]:
        message = f"a conversation does not read this; it reads {', '.join(KINDS)}"
        keys = [(name,) for name in unread]
        raise RecipeError([Problem(k, message, origin=document.origins[k]) for k in keys])
    return document


def _of_run(folder: Path) -> Document:
    """Return the tables of a run's recipe; its policy is the model that the run left."""
    document = toml.read(folder / "recipe.toml")
    table = {name: document.table[name] for name in KINDS if name in document.table}
    policy = table.get("policy", {})
    if isinstance(policy, dict) and (found := model_of(folder)):
        table["policy"] = {**{k: v for k, v in policy.items() if k == "use"}, "path": str(found)}
    return replace(document, table=table)


def model_of(folder: Path) -> Path | None:
    """Return the folder of the model that a run left: the last, else the newest it kept."""
    kept = sorted((folder / "checkpoints").glob("step_*/model"))
    found = [folder / "final", *reversed(kept)]
    return next((model.absolute() for model in found if model.is_dir()), None)


def _built(document: Document, name: str, registry: Registry) -> Any:
    """Build the component of one table; RecipeError lists everything that is wrong with it."""
    origins = {key[1:]: o for key, o in document.origins.items() if key[:1] == (name,)}
    table = Document(document.table.get(name) or {}, origins, document.path)
    return recipe.resolve(table, registry, KINDS[name]).build()


@dataclass
class Conversation:
    """The messages said so far, all conversations, and the file that keeps them."""

    parts: Parts
    seed: int
    transcript: Path
    about: dict[str, Any] = field(default_factory=dict)
    """Kept beside the messages of each conversation, such as the model's name."""
    messages: list[dict[str, str]] = field(default_factory=list)
    ended: list[list[dict[str, str]]] = field(default_factory=list)

    @property
    def remembers(self) -> bool:
        """Whether the policy is shown what was said before: with a chat template it is."""
        return isinstance(self.parts.prompt, Converses)

    def begin_anew(self) -> None:
        """Put what was said so far aside."""
        if self.messages:
            self.ended.append(self.messages)
        self.messages = []

    def reply(self, text: str) -> str:
        """Return the policy's answer, and remember both.

        AlignkitError if there is no room for an answer, or if ``text`` is no text.
        """
        if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
            raise AlignkitError("this is no UTF-8; type it again")
        policy = self.parts.policy
        said = {"role": "user", "content": text}
        before = [*self.messages, said] if self.remembers else ()
        example = Example("chat", text, "", messages=tuple(before))
        prompt, ids = prompt_of(example, self.parts.prompt, policy)
        if len(ids) >= policy.max_length:
            raise AlignkitError(
                f"{len(ids)} tokens leave no room in the {policy.max_length} that the policy "
                f"takes; {NEW} begins another conversation"
            )
        completion = self._sampled(ids)
        answer = SampledResponse.after(prompt, completion)
        kept = answer.answer or str(answer) if self.remembers else str(answer)
        self.messages += [said, {"role": "assistant", "content": kept}]
        return str(answer)

    def _sampled(self, ids: tuple[int, ...]) -> Completion:
        base = with_stops(self.parts.rollout.sampling, self.parts.prompt)
        turn = len(self.messages) // 2
        how = replace(base, n=1, seed=self.seed, step=turn, prompt_keys=(len(self.ended),))
        [[completion]] = generated(self.parts.rollout, [ids], how, self.parts.policy)
        return completion

    def keep(self) -> None:
        """Write every conversation, one a line, in the form that the data set ``chat`` reads.

        AlignkitError if the file cannot be written.
        """
        rows = ({"messages": m, **self.about} for m in [*self.ended, self.messages] if m)
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        try:
            self.transcript.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.transcript, lines)
        except OSError as error:
            where = shown(self.transcript)
            raise AlignkitError(f"not kept: cannot write {where}: {error.strerror}") from error


def transcript_for(model: str, given: Path | None) -> Path:
    """Return the file for the transcript: ``given``, or a new one in the run directory or here.

    AlignkitError for a given file that exists: what it holds would be lost.
    """
    if given is not None:
        if given.exists():
            raise AlignkitError(f"{shown(given)} exists; give another file to keep the transcript")
        return given
    folder = Path(model) / "chats" if is_run(Path(model)) else Path("chats")
    number = next(n for n in range(1, 10**6) if not (folder / f"chat_{n:04}.jsonl").exists())
    return folder / f"chat_{number:04}.jsonl"


def talk(
    conversation: Conversation, heard: Callable[[], Iterator[str]], say: Callable[[str], None]
) -> None:
    """Answer each line heard until there is none, or one says to end."""
    parts = conversation.parts
    end_turns(parts.policy, [parts.prompt])
    forgets = "" if conversation.remembers else "; each question stands alone"
    say(f"{parts.policy.name}: {HELP}{forgets}")
    with serving(parts.rollout, parts.policy):
        for line in heard():
            text = line.strip()
            if text == END:
                break
            if text == NEW:
                conversation.begin_anew()
                say("a new conversation")
            elif text:
                try:
                    say(conversation.reply(text))
                    conversation.keep()
                except AlignkitError as error:
                    say(str(error))
    if conversation.transcript.exists():
        say(f"kept in {shown(conversation.transcript)}")
