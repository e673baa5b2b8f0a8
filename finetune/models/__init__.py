from finetune.models.audit import AuditEvent
from finetune.models.cleaning import Cleaning
from finetune.models.drafting import Drafting
from finetune.models.erasure import ErasedCopy, Erasure
from finetune.models.imports import ColumnMapping, ImportProblem, PairImport
from finetune.models.pairs import (
    Dataset,
    DuplicateCluster,
    DuplicateMember,
    InstructionPair,
    PairSource,
    PairVector,
    Review,
    SavedView,
)
from finetune.models.snapshots import DatasetSnapshot, SnapshotRow
from finetune.models.training import (
    Activation,
    Adapter,
    ArenaVote,
    Evaluation,
    EvaluationItem,
    RetrainRule,
    TrainingMetric,
    TrainingRun,
)
from finetune.models.triage import GapQuestion, KnowledgeGap, RetrievalQuestion, TriageItem

__all__ = [
    "Activation",
    "Adapter",
    "ArenaVote",
    "AuditEvent",
    "Cleaning",
    "ColumnMapping",
    "Dataset",
    "DatasetSnapshot",
    "Drafting",
    "DuplicateCluster",
    "DuplicateMember",
    "ErasedCopy",
    "Erasure",
    "Evaluation",
    "EvaluationItem",
    "GapQuestion",
    "ImportProblem",
    "InstructionPair",
    "KnowledgeGap",
    "PairImport",
    "PairSource",
    "PairVector",
    "RetrainRule",
    "RetrievalQuestion",
    "Review",
    "SavedView",
    "SnapshotRow",
    "TrainingMetric",
    "TrainingRun",
    "TriageItem",
]
