# Copyright (c) mmdetr authors. All rights reserved.
"""What a foreign checkpoint looks like, told as tables.

A new source is one :class:`Layout`: its table of names, the names under
which it saves a tensor twice, the tensors whose rows count classes, and the
shipped configs. Nothing else in this package knows a method by name.
"""

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

# Fields of a name template with a closed set of values. Every other field is
# an index. Closed sets keep a misspelt name from slipping through a rule.
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
    """Read the fields of a name.

    Args:
        template (str): A name with ``{field}`` in place of what varies.
        name (str): The name to read.

    Returns:
        dict[str, str] | None: The value of each field (there may be none);
        None if the name is of another form.
    """
    found = _regex(template).fullmatch(name)
    return found.groupdict() if found else None


def rename(name: str, source: str, target: str) -> str | None:
    """Put the fields of ``name``, read by ``source``, into ``target``."""
    fields = match(source, name)
    return None if fields is None else target.format(**fields)


@dataclass(frozen=True)
class Rule:
    """One line of a table of names.

    Args:
        source (str): Template of the name in the foreign checkpoint.
        target (str): Template of the name here, with the same fields.
        transform (Callable, optional): What happens to the tensor. By
            default nothing.
    """

    source: str
    target: str
    transform: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Alias:
    """A second name of one tensor.

    Args:
        source (str): Template of the second name.
        canonical (str): Template of the name that counts.
        keep (bool): Whether this project saves the tensor under both names
            too. Defaults to False: the second name is dropped.
        unless (tuple[str]): The names are independent of each other in a
            checkpoint where any name starts with one of these.
    """

    source: str
    canonical: str
    keep: bool = False
    unless: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClassTensor:
    """A tensor one of whose axes counts the classes.

    Args:
        target (str): Template of its name in this project.
        fresh (Callable): Makes the values of a shape as the method does
            before training.
        axis (int): The axis that counts classes. Defaults to 0.
        num_extra (int): Entries that follow the classes on that axis (a row
            for "no object", say). Defaults to 0.
        decoder (str, optional): Template of the prefix of the decoder layer
            that it belongs to. A tensor without such a layer scores the
            first stage's proposals: its row 0 is "object", whatever the
            classes are.
    """

    target: str
    fresh: Callable[[torch.Size], Tensor]
    axis: int = 0
    num_extra: int = 0
    decoder: str | None = None


@dataclass(frozen=True)
class Layout:
    """How one source names the tensors of one method.

    Args:
        name (str): Short name, ``method/source``.
        title (str): The same in words.
        rules (tuple[Rule]): The table of names.
        aliases (tuple[Alias]): Tensors that are saved twice.
        class_tensors (tuple[ClassTensor]): Tensors that depend on the number
            of classes.
        configs (tuple[str]): Patterns of the shipped configs that its
            checkpoints may fit, the nearest ones first.
        max_per_img (int, optional): Detections per image behind the published
            AP. By default nothing was published, or with various numbers.
    """

    name: str
    title: str
    rules: tuple[Rule, ...]
    aliases: tuple[Alias, ...]
    class_tensors: tuple[ClassTensor, ...]
    configs: tuple[str, ...]
    max_per_img: int | None = None

    def rule_of(self, name: str) -> tuple[Rule, str] | None:
        """Find the rule for a name of the source, and its name here."""
        for rule in self.rules:
            target = rename(name, rule.source, rule.target)
            if target is not None:
                return rule, target
        return None

    def is_alias(self, name: str) -> bool:
        """Whether the source may save another tensor under this name."""
        return any(match(a.source, name) is not None for a in self.aliases)

    def aliases_in(
        self, names: Collection[str]
    ) -> Iterator[tuple[str, str, bool]]:
        """Find the second names in a checkpoint.

        Args:
            names (Collection[str]): All names of the source.

        Yields:
            tuple[str, str, bool]: The second name, the name that counts, and
            whether this project keeps both.
        """
        for alias in self.aliases:
            if any(name.startswith(alias.unless) for name in names):
                continue
            for name in names:
                canonical = rename(name, alias.source, alias.canonical)
                if canonical:
                    yield name, canonical, alias.keep

    def source_name(self, target: str) -> str:
        """Name a tensor of this project as the source would.

        Names that no rule produces come back unchanged.
        """
        names = (rename(target, r.target, r.source) for r in self.rules)
        return next((name for name in names if name), target)
