"""The plan of an evaluation: what is missing of it, found by running its own code with steps that only look things up.

A missing object becomes part of an element, and a placeholder that carries its true digest stands for it, so that the
code goes on to what is made of it. It stops only where it reads what is not there yet, and is run again once it is.
So the plan is a graph: an element is ready when all that it reads is finished, whatever stage its step belongs to.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from storage.errors import NotFinished
from storage.objects import MANIFEST, OBJECTS, LazyRef, Ref, find
from storage.store import Store
from tasks.elements import Element, refs_in
from tasks.recipe import Pool, Step

# What the workers of a pool have: `device`, and `versions` of libraries. `NotFinished` while that is not decided.
Needs = Callable[[Pool], Mapping[str, Any]]


class Finished:
    """Which objects are finished, by listings of the store and by what is told; one listing for each step.

    The ref of an object that a listing named is read when somebody asks for its counts.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        # Rows and bytes: of a million objects, a ref of each would be half of what a plan takes.
        self._refs: dict[str, tuple[int, int] | None] = {}
        self._listed: set[str] = set()

    def __contains__(self, place: str) -> bool:
        return place in self._refs

    def add(self, ref: Ref) -> None:
        """An object was finished."""
        self._refs[ref.uri] = (ref.rows, ref.bytes)

    def forget(self) -> None:
        """Ask the store anew: an object was found damaged, and its manifest is void."""
        self._refs.clear()
        self._listed.clear()

    def list_step(self, name: str) -> None:
        """List a step's objects, once."""
        if name not in self._listed:
            self._listed.add(name)
            for place in self._complete(f"{OBJECTS}/{name}"):
                self._refs.setdefault(place, None)

    def _complete(self, folder: str) -> Iterator[str]:
        """Places below a folder that have a manifest and some part; whether all parts are whole is seen when one reads.

        An object without a part, as far as the listing goes, is looked at itself.
        """
        manifests: set[str] = set()
        with_parts: set[str] = set()
        for listed in self._store.scan(folder):
            place, _, name = listed.key.rpartition("/")
            (manifests if name == MANIFEST else with_parts).add(place)
        for place in manifests:
            if place in with_parts or find(self._store, place) is not None:
                yield place

    def whole(self, place: str) -> Ref:
        """The ref of a finished object with its counts.

        Raises:
            NotFinished: it is not finished.
        """
        return Ref.at(place, *self.look_at(place))

    def look_at(self, place: str) -> tuple[int, int]:
        """Rows and bytes of a finished object, which is read where only a listing has named it; raises as `whole`."""
        counts = self._refs.get(place)
        if counts is None:
            if place not in self._refs:
                raise NotFinished(place)
            ref = find(self._store, place)
            if ref is None:
                del self._refs[place]
                raise NotFinished(place)
            counts = self._refs[place] = (ref.rows, ref.bytes)
        return counts


@dataclass(slots=True)
class _Node:
    element: Element
    missing: int  # inputs that are not finished
    left: int  # objects that are not finished
    released: bool = False


class Plan:
    """The elements of an evaluation that were found so far, and which of them are ready.

    Args:
        finished: what the store holds.
        needs: what the workers of each pool have; decided once.
    """

    def __init__(self, finished: Finished, needs: Needs) -> None:
        self.finished = finished
        self._needs = needs
        self._ref = LazyRef.maker(finished.whole)
        self._nodes: dict[str, _Node] = {}  # by each place that they make
        self._waiting: dict[str, list[_Node]] = {}  # by the place that they wait for
        self._ready: deque[_Node] = deque()
        self._alone: deque[_Node] = deque()
        self.open = 0  # elements that are not finished
        self._at_work = 0  # those of them that were taken
        self._silence = False  # one of them runs alone
        self.total: Counter[tuple[str, Pool]] = Counter()  # elements, by step and pool
        self.done: Counter[tuple[str, Pool]] = Counter()

    def call(self, step: Step, arguments: dict[str, Any]) -> Any:
        """Take note of a call, as `tasks.recipe.Planner`."""
        self.finished.list_step(step.name)
        places = step.places(arguments)
        unknown = [place not in self.finished and place not in self._nodes for place in places]
        if any(unknown):
            self._add(step, step.only(arguments, unknown), [p for p, new in zip(places, unknown, strict=True) if new])
        refs = tuple(map(self._ref, places))
        return refs if step.makes_several else refs[0]

    def find(self, step: Step, place: str) -> Ref | None:
        """A finished object, as `tasks.recipe.Planner`."""
        self.finished.list_step(step.name)
        return self._ref(place) if place in self.finished else None

    def library_version(self, library: str, pool: Pool) -> str | None:
        """As `tasks.recipe.Planner`."""
        found: str | None = self._needs(pool)["versions"][library]
        return found

    def device(self) -> str:
        """As `tasks.recipe.Planner`."""
        return str(self._needs("gpu")["device"])

    def _add(self, step: Step, arguments: dict[str, Any], places: Collection[str]) -> None:
        places_read = {ref.uri for value in arguments.values() for ref in refs_in(value)}
        inputs = [place for place in places_read if place not in self.finished]
        node = _Node(Element(step, arguments, tuple(places)), len(inputs), len(places))
        self._nodes.update(dict.fromkeys(places, node))
        for place in inputs:
            self._waiting.setdefault(place, []).append(node)
        self.open += 1
        self.total[step.name, step.pool(**arguments)] += 1
        if not inputs:
            self._is_ready(node)

    def _is_ready(self, node: _Node) -> None:
        (self._alone if node.element.step.alone else self._ready).append(node)

    def finish(self, ref: Ref) -> None:
        """An object was finished: elements that waited for it last are ready now."""
        if ref.uri in self.finished and ref.uri not in self._nodes:
            return
        self.finished.add(ref)
        node = self._nodes.pop(ref.uri, None)
        if node is not None:
            node.left -= 1
            if node.left == 0:
                self.open -= 1
                self._at_work -= node.released
                self._silence = self._silence and not node.element.step.alone
                self.done[node.element.step.name, node.element.step.pool(**node.element.arguments)] += 1
        for waiting in self._waiting.pop(ref.uri, ()):
            waiting.missing -= 1
            if waiting.missing == 0:
                self._is_ready(waiting)

    def take_ready(self) -> list[Element]:
        """Elements that are ready and were not taken before; one that runs alone comes when nothing else is at work."""
        if self._silence:
            return []
        taken = []
        while self._ready:
            taken.append(self._taken(self._ready.popleft()))
        if not self._at_work and self._alone:
            self._silence = True
            taken.append(self._taken(self._alone.popleft()))
        return taken

    def _taken(self, node: _Node) -> Element:
        node.released = True
        self._at_work += 1
        for value in node.element.arguments.values():
            for ref in refs_in(value):
                self.finished.look_at(ref.uri)
        return node.element

    def forget(self) -> None:
        """Begin anew: a damaged object was voided, and perhaps what was thought to be finished is not."""
        self.finished.forget()
        self._nodes.clear()
        self._waiting.clear()
        self._ready.clear()
        self._alone.clear()
        self.open = self._at_work = 0
        self._silence = False
        self.total = Counter(self.done)
