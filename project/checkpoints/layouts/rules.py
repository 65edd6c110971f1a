# Copyright (c) mmdetr authors. All rights reserved.
"""Tables that describe the checkpoints of other repositories.

A new source is one :class:`Layout`: its table of names, the second names of
tensors, the tensors that depend on the number of classes, and the shipped
configs. Nothing else in this package knows a method by name.
"""

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

# Fields of name templates with a closed set of values, so that misspelt names
# match no rule. All other fields are indices.
_FIELDS = dict(
    leaf='weight|bias',
    norm='weight|bias|running_mean|running_var',
    coder='encoder|decoder',
    deform='sampling_offsets|attention_weights|value_proj|output_proj',
    mha=r'in_proj_weight|in_proj_bias|out_proj\.weight|out_proj\.bias',
    qkv='qkv|proj',
)


@cache
def _regex(template: str) -> re.Pattern[str]:
    """Compile a name template such as ``encoder.layers.{i}.norm1.{leaf}``."""
    pieces = re.split(r'\{(\w+)\}', template)
    for k, piece in enumerate(pieces):
        if k % 2:
            pieces[k] = f'(?P<{piece}>{_FIELDS.get(piece, "[0-9]+")})'
        else:
            pieces[k] = re.escape(piece)
    return re.compile(''.join(pieces))


def match(template: str, name: str) -> dict[str, str] | None:
    """Match a name with a template.

    Args:
        template (str): A name with ``{field}`` for its variable parts.
        name (str): The name.

    Returns:
        dict[str, str] | None: The value of each field; None if the name does
        not match.
    """
    found = _regex(template).fullmatch(name)
    return found.groupdict() if found else None


def rename(name: str, source: str, target: str) -> str | None:
    """Rename by templates; None if ``name`` does not match ``source``."""
    fields = match(source, name)
    return None if fields is None else target.format(**fields)


@dataclass(frozen=True)
class Rule:
    """One line of a table of names.

    Args:
        source (str): Template of the name in the source.
        target (str): Template of the name here, with the same fields.
        transform (Callable, optional): Applied to the tensor.
    """

    source: str
    target: str
    transform: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Alias:
    """A second name of one tensor.

    Args:
        source (str): Template of the second name.
        canonical (str): Template of the first name.
        keep (bool): Whether this project has both names, too. Defaults to
            False: the second name is dropped.
        unless (tuple[str]): In checkpoints with a name that starts with one
            of these, the two are independent tensors.
    """

    source: str
    canonical: str
    keep: bool = False
    unless: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClassTensor:
    """A tensor with an axis over the classes.

    Args:
        target (str): Template of its name in this project.
        fresh (Callable): Initializes a tensor of a shape as in the method.
        axis (int): Axis of the classes. Defaults to 0.
        num_extra (int): Number of entries after the classes on that axis,
            such as a row for "no object". Defaults to 0.
        decoder (str, optional): Template of the prefix of its decoder layer.
            A tensor without such a layer belongs to the first stage: its row
            0 is the objectness, whatever the classes are.
    """

    target: str
    fresh: Callable[[torch.Size], Tensor]
    axis: int = 0
    num_extra: int = 0
    decoder: str | None = None


@dataclass(frozen=True)
class Layout:
    """Names of the tensors of one method in one source.

    Args:
        name (str): Short name, ``method/source``.
        title (str): Name in words.
        rules (tuple[Rule]): The table of names.
        aliases (tuple[Alias]): Second names of tensors.
        class_tensors (tuple[ClassTensor]): Tensors that depend on the number
            of classes.
        configs (tuple[str]): Patterns of the shipped configs that its
            checkpoints may fit, the best first.
        max_per_img (int, optional): Detections per image of the published AP,
            if there is one number.
    """

    name: str
    title: str
    rules: tuple[Rule, ...]
    aliases: tuple[Alias, ...]
    class_tensors: tuple[ClassTensor, ...]
    configs: tuple[str, ...]
    max_per_img: int | None = None

    def rule_of(self, name: str) -> tuple[Rule, str] | None:
        """Find the rule for a name of the source, and the name here."""
        for rule in self.rules:
            target = rename(name, rule.source, rule.target)
            if target is not None:
                return rule, target
        return None

    def is_alias(self, name: str) -> bool:
        """Whether this may be a second name."""
        return any(match(a.source, name) is not None for a in self.aliases)

    def aliases_in(
        self, names: Collection[str]
    ) -> Iterator[tuple[str, str, bool]]:
        """Find the second names in a checkpoint.

        Yields:
            tuple[str, str, bool]: Second name, first name, and whether this
            project has both.
        """
        for alias in self.aliases:
            if any(name.startswith(alias.unless) for name in names):
                continue
            for name in names:
                canonical = rename(name, alias.source, alias.canonical)
                if canonical:
                    yield name, canonical, alias.keep

    def source_name(self, target: str) -> str:
        """Name in the source; names without a rule are unchanged."""
        names = (rename(target, r.target, r.source) for r in self.rules)
        return next((name for name in names if name), target)
