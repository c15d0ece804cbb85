//! Patches of a run on CUDA values: planned as they come, launched together at the end of a node.

use super::{Run, Verdict};
use graphpatch_core::patch::action::Action;
use graphpatch_core::patch::kept::OnDevice;
use graphpatch_cuda::{self as cuda, DeviceError, Planned, Tensor, Value};

impl Run {
    /// Applies patch `index` to a CUDA tensor; `foreign` is the patch's value if that is a tensor of libtorch's. If `more`
    /// patches come at this node, the launch may wait for [`Run::flush_device`], which then counts the patch.
    pub fn apply_on_device(
        &mut self,
        index: u32,
        tensor: &Tensor<'_>,
        foreign: Option<Value<'_>>,
        more: bool,
    ) -> Verdict {
        let Some(patch) = self.patch(index) else {
            return Verdict::Skipped;
        };
        let cuda = match cuda::cuda() {
            Ok(cuda) => cuda,
            Err(why) => return self.without_kernels(why),
        };
        if !self.queue.takes(tensor) && self.flush_device() == Verdict::Raise {
            return Verdict::Raise;
        }
        match self.queue.push(cuda, &patch, tensor, foreign) {
            Ok(Planned::Queued) if more => Verdict::Applied,
            Ok(Planned::Queued) => self.flush_device(),
            Ok(Planned::Elsewhere) => match self.flush_device() {
                Verdict::Raise => Verdict::Raise,
                _ => Verdict::Elsewhere,
            },
            Err(DeviceError::Unusable(why)) => self.without_kernels(&why),
            Err(DeviceError::Failed(why)) => {
                let before = self.flush_device();
                let now = self.failed(&patch, &why, Some(tensor.sizes));
                if before == Verdict::Raise {
                    before
                } else {
                    now
                }
            }
        }
    }

    /// Launches the patches that wait. The verdict is that of the last patch, or [`Verdict::Raise`] if one of them is to raise.
    pub fn flush_device(&mut self) -> Verdict {
        let mut verdict = Verdict::Applied;
        if self.queue.is_empty() {
            return verdict;
        }
        let Ok(cuda) = cuda::cuda() else {
            return verdict;
        };
        for (patch, fault) in self.queue.flush(cuda) {
            let one = match fault {
                None => self.succeeded(&patch),
                Some(why) => self.failed(&patch, &why, None),
            };
            if verdict != Verdict::Raise {
                verdict = one;
            }
        }
        verdict
    }

    /// Keeps a copy that was made on a device, for the probe or record `index`.
    pub fn keep_on_device(&mut self, index: u32, value: OnDevice) -> Verdict {
        let Some(patch) = self.patch(index) else {
            return Verdict::Skipped;
        };
        let Action::Keep(kept) = &patch.patch.action else {
            return Verdict::Skipped;
        };
        kept.push_on_device(value);
        self.succeeded(&patch)
    }

    /// Leaves the patch to libtorch's own operations, and notes the reason once.
    fn without_kernels(&mut self, why: &str) -> Verdict {
        self.session.note(&format!(
            "CUDA values are patched by libtorch's own operations, not by our kernels: {why}"
        ));
        Verdict::Elsewhere
    }
}
