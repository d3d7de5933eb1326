"""The tasks of the lab, by name, and the task and the settings that belong to an objective."""

from collections.abc import Mapping
from typing import Any

from lossatlas.lab.errors import ArgumentError, unknown
from lossatlas.lab.registry import OBJECTIVES, find_objective
from lossatlas.lab.tasks.detection import Detection
from lossatlas.lab.tasks.pose import Pose
from lossatlas.lab.tasks.segmentation import SemanticSegmentation
from lossatlas.lab.tasks.task import Predictions, Task

__all__ = ["DEFAULT_TASK", "TASKS", "Predictions", "Task", "choose_objective", "default_recipe", "task_of"]

TASKS: Mapping[str, Task] = {task.name: task for task in (Detection(), SemanticSegmentation(), Pose())}
"""Every task by its name."""

DEFAULT_TASK = "detection"
"""The task of a comparison that names neither a task nor an objective."""


def task_of(objective: str) -> Task:
    """Return the task that an objective belongs to.

    Raises:
        ArgumentError: an unknown objective.

    Example:
        >>> task_of("retinanet").name
        'detection'
    """
    return TASKS[find_objective(objective).task]


def choose_objective(task: str | None, objective: str | None) -> str:
    """Return the objective that a user means, who may have named either, both or neither.

    Raises:
        ArgumentError: an unknown name, or an objective of another task.

    Example:
        >>> choose_objective(None, None), choose_objective("detection", "retinanet")
        ('fcos', 'retinanet')
    """
    if task is not None and task not in TASKS:
        raise ArgumentError(unknown("task", task, TASKS))
    if objective is None:
        return TASKS[task or DEFAULT_TASK].objective
    if task is not None and task_of(objective).name != task:
        valid = ", ".join(spec.name for spec in OBJECTIVES.values() if spec.task == task)
        raise ArgumentError(
            f"objective {objective!r} belongs to the task {task_of(objective).name}, not to {task}; valid: {valid}"
        )
    return find_objective(objective).name


def default_recipe(objective: str) -> dict[str, Any]:
    """Return the settings of training whose default is another for this objective than `TrialConfig`'s."""
    return {**task_of(objective).recipe, **find_objective(objective).recipe}
