"""How a distilled set is judged: protocols, fresh networks, their scores; the validation probe."""

from iadd.evaluation.judge import Teacher as Teacher
from iadd.evaluation.judge import accuracy as accuracy
from iadd.evaluation.judge import evaluate as evaluate
from iadd.evaluation.judge import score as score
from iadd.evaluation.judge import teacher_of as teacher_of
from iadd.evaluation.protocols import PROTOCOLS as PROTOCOLS
from iadd.evaluation.protocols import Protocol as Protocol
from iadd.evaluation.protocols import find_protocol as find_protocol
from iadd.evaluation.validation import Validation as Validation
from iadd.evaluation.validation import validation_accuracy as validation_accuracy
