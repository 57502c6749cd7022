"""The one contract that trainer and service share: what a trial is, what a slice asks for, what comes back.

Pydantic only. Nothing here imports torch, so the API image does not need it.
"""

from trainer.spec.base import API_VERSION as API_VERSION
from trainer.spec.base import Frozen as Frozen
from trainer.spec.base import Outcome as Outcome
from trainer.spec.fingerprints import DataFingerprints as DataFingerprints
from trainer.spec.health import DeviceHealth as DeviceHealth
from trainer.spec.health import is_device_fault as is_device_fault
from trainer.spec.health import worsened as worsened
from trainer.spec.jobs import CheckData as CheckData
from trainer.spec.jobs import CheckPaths as CheckPaths
from trainer.spec.jobs import Job as Job
from trainer.spec.jobs import JobResult as JobResult
from trainer.spec.jobs import PathSeen as PathSeen
from trainer.spec.jobs import PathsReport as PathsReport
from trainer.spec.jobs import Task as Task
from trainer.spec.jobs import job_task as job_task
from trainer.spec.messages import Phase as Phase
from trainer.spec.messages import Progress as Progress
from trainer.spec.messages import Ready as Ready
from trainer.spec.messages import StartJob as StartJob
from trainer.spec.messages import StartSlice as StartSlice
from trainer.spec.messages import StopSlice as StopSlice
from trainer.spec.messages import WorkerCommand as WorkerCommand
from trainer.spec.messages import WorkerMessage as WorkerMessage
from trainer.spec.messages import worker_command as worker_command
from trainer.spec.messages import worker_message as worker_message
from trainer.spec.quality import QualityReport as QualityReport
from trainer.spec.quality import QualityThresholds as QualityThresholds
from trainer.spec.slices import FileDigest as FileDigest
from trainer.spec.slices import Slice as Slice
from trainer.spec.slices import SliceResult as SliceResult
from trainer.spec.slices import SnapshotManifest as SnapshotManifest
from trainer.spec.slices import SnapshotRef as SnapshotRef
from trainer.spec.trial import DataFormat as DataFormat
from trainer.spec.trial import DataSpec as DataSpec
from trainer.spec.trial import LrScheduler as LrScheduler
from trainer.spec.trial import ModelSpec as ModelSpec
from trainer.spec.trial import Parameters as Parameters
from trainer.spec.trial import TrainingSettings as TrainingSettings
from trainer.spec.trial import TrialFile as TrialFile
from trainer.spec.trial import TrialSpec as TrialSpec
from trainer.spec.usage import Notice as Notice
from trainer.spec.usage import Usage as Usage
from trainer.spec.usage import UsageSums as UsageSums
from trainer.spec.usage import sum_usage as sum_usage
from trainer.spec.zero import ZeroConfig as ZeroConfig
from trainer.spec.zero import ZeroSettings as ZeroSettings
