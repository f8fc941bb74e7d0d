"""``alignkit describe`` tells every key that a recipe may hold: components and fixed tables."""

import pytest

from alignkit import plugins
from alignkit.component import slots_of
from alignkit.docs import field_docs
from alignkit.kinds import KINDS

REGISTRY = plugins.load()


def tables_below(schema, path=()):
    """Return the schema of every table of fixed shape below a component, by dotted name."""
    found = {}
    for slot in slots_of(schema, KINDS).values():
        if slot.table:
            name = (*path, slot.name)
            found[".".join(name)] = slot.table
            inner = (*name, "NAME") if slot.arity == "map" else name
            found |= tables_below(slot.table, inner)
    return found


HOLDERS = [
    (kind, name, tables)
    for (kind, name), offers in REGISTRY.offers.items()
    for _, component in offers
    if (tables := tables_below(component.params))
]


def sections(text):
    """Split a description into the lines below each ``[table]`` header."""
    found, lines = {}, []
    for line in text.splitlines():
        if line.startswith("["):
            lines = found.setdefault(line.split("]")[0].strip("["), [])
        elif line.startswith("  "):
            lines.append(line)
    return found


@pytest.mark.parametrize(("kind", "name", "tables"), HOLDERS, ids=lambda v: str(v)[:24])
def test_a_component_lists_the_fields_of_its_fixed_tables(alignkit, kind, name, tables):
    told = sections(alignkit("describe", kind, name).output)
    for path, schema in tables.items():
        lines = told[path] if path in told else told[f"{path}.NAME"]
        for field, info in schema.model_fields.items():
            (line,) = [x for x in lines if x.startswith(f"  {field}: ")]
            assert ("= " in line) == (not info.is_required())
            first = " ".join(field_docs(schema)[field].split()).split(". ")[0].rstrip(".")
            assert line.rstrip(".").endswith(first)


@pytest.mark.parametrize("name", ["eval", "checkpoint", "reference", "lora", "watch", "sets"])
def test_a_fixed_table_is_described_in_full_by_its_name(alignkit, name):
    done = alignkit("describe", "table", name)
    assert done.exit_code == 0
    schemas = [t for _, _, ts in HOLDERS for p, t in ts.items() if p.split(".")[-1] == name]
    assert schemas
    for schema in schemas:
        for field, doc in field_docs(schema).items():
            assert f"  {field}: " in done.output
            assert all(line in done.output for line in doc.splitlines())


def test_it_says_who_has_the_table(alignkit):
    done = alignkit("describe", "table", "[eval.sets.NAME]")
    assert done.output.startswith("[eval.sets.NAME]  (of algorithm distill, algorithm dpo, ")
    assert "algorithm grpo" in done.output.splitlines()[0]


def test_a_table_that_chooses_a_component_says_which_there_are(alignkit):
    said = alignkit("describe", "table", "rollout").output
    assert said.startswith("[rollout] chooses a rollout_backend with `use`: hf, vllm;")


def test_an_unknown_table_is_refused_with_a_guess(alignkit):
    done = alignkit("describe", "table", "evall")
    assert done.exit_code == 2
    assert "no table 'evall'. Did you mean 'eval'?" in done.output
