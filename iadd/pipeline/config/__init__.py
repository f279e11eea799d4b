"""A benchmark's configuration: a YAML file becomes frozen, checked values, a module a section."""

from iadd.pipeline.config.benchmark import Config as Config
from iadd.pipeline.config.benchmark import load_config as load_config
from iadd.pipeline.config.benchmark import parse_config as parse_config
from iadd.pipeline.config.file import refuse_shell as refuse_shell
from iadd.pipeline.config.judging import EvaluationConfig as EvaluationConfig
from iadd.pipeline.config.judging import PrivacyConfig as PrivacyConfig
