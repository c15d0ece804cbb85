//! Hooks of the forward functions of libtorch's own modules (`torch::nn::Linear` and the like), by which finished C++ programs
//! show where a module's call begins and ends. They stand before libtorch's own functions in a preloaded process. Only flat runs
//! use them.
//!
//! As in `members`, each hook passes on what it was called with: the six integer argument registers and the first words of the
//! stack, since all arguments are references, flags, and tensors, which travel by reference. The result comes back in memory whose
//! address is the first argument, on x86-64 alone; so these hooks are only there. Exceptions pass through.

use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use super::members::{c_string, real};
use super::{own_forwards, process};
use graphpatch_loader::imports;
use graphpatch_session::Session;
use graphpatch_torch::{self as torch, ModuleCall};

type Forward = unsafe extern "C-unwind" fn(
    usize,
    usize,
    usize,
    usize,
    usize,
    usize,
    usize,
    usize,
    usize,
    usize,
) -> usize;

/// `0` in this variable: calls of modules are not told of.
const VARIABLE: &str = "GRAPHPATCH_CPP_MODULES";

/// Whether calls of modules are told of, if there are any.
static WANTED: AtomicBool = AtomicBool::new(false);
static STARTED: AtomicBool = AtomicBool::new(false);

/// From now on calls of modules are told of. What cannot be seen is noted.
pub(super) fn begin(session: &Session) {
    if std::env::var_os(VARIABLE).is_some_and(|value| value == "0") {
        return;
    }
    WANTED.store(true, Ordering::Release);
    let files = imports::with_modules();
    if files.is_empty() {
        return; // a library with modules may come later
    }
    // Operations before the first call are then named as those after it.
    start();
    let objects = own_forwards::loaded(&files);
    own_forwards::lead_to_hooks(&objects);
    if process::threads() > 1 {
        session.note("calls of the program's own modules are not seen: threads ran before libtorch was loaded");
        return;
    }
    for left in own_forwards::redirect_all(&objects) {
        session.note(&format!("calls of this function are not seen: {left}"));
    }
}

fn start() {
    if WANTED.load(Ordering::Acquire) && !STARTED.swap(true, Ordering::AcqRel) {
        torch::modules_start();
    }
}

/// What a forward function returns.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Returns {
    /// One tensor.
    Tensor,
    /// Anything else.
    Values,
}

/// A call of a forward function on a module: `result` is the address of what it returns, `module` that of the module. `call` calls
/// the function itself.
pub(super) fn told(
    module: usize,
    result: usize,
    returns: Returns,
    call: impl FnOnce() -> usize,
) -> usize {
    start();
    let told = ModuleCall::enter(module);
    let answer = call();
    if told.is_known() && returns == Returns::Tensor {
        // SAFETY: the function has returned, so its result is there; the caller does not know it yet.
        unsafe {
            told.output(
                std::ptr::with_exposed_provenance_mut::<c_void>(result),
                true,
            )
        };
    }
    answer
}

macro_rules! returns {
    (tensor) => {
        Returns::Tensor
    };
    (values) => {
        Returns::Values
    };
}

macro_rules! forwards {
    ($($returns:ident $symbol:literal;)*) => {
        $(
            const _: () = {
                /// # Safety
                /// As the function of libtorch's.
                #[unsafe(export_name = $symbol)]
                unsafe extern "C-unwind" fn forward(
                    result: usize,
                    module: usize,
                    c: usize,
                    d: usize,
                    e: usize,
                    f: usize,
                    g: usize,
                    h: usize,
                    i: usize,
                    j: usize,
                ) -> usize {
                    static REAL: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
                    const NAME: &CStr = c_string(concat!($symbol, "\0"));
                    // SAFETY: the address is that of a function all of whose arguments travel in these registers and words.
                    let real = unsafe { std::mem::transmute::<*const c_void, Forward>(real(NAME, &REAL)) };
                    // SAFETY: libtorch's own function, with the caller's arguments.
                    let call = || unsafe { real(result, module, c, d, e, f, g, h, i, j) };
                    match torch::is_flat() {
                        true => told(module, result, returns!($returns), call),
                        false => call(),
                    }
                }
            };
        )*
    };
}

// Every forward function that libtorch 2.11 exports. Where another version has others, their calls are not seen. Which of them return a
// tensor is not in a symbol: see torch/nn/modules/*.h.
forwards! {
    tensor "_ZN5torch2nn10Conv1dImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn10Conv2dImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn10Conv3dImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn10L1LossImpl7forwardERKN2at6TensorES5_";
    tensor "_ZN5torch2nn10LinearImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn10UnfoldImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn11BCELossImpl7forwardERKN2at6TensorES5_";
    tensor "_ZN5torch2nn11CTCLossImpl7forwardERKN2at6TensorES5_S5_S5_";
    tensor "_ZN5torch2nn11DropoutImpl7forwardEN2at6TensorE";
    tensor "_ZN5torch2nn11FlattenImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn11GRUCellImpl7forwardERKN2at6TensorES5_";
    tensor "_ZN5torch2nn11MSELossImpl7forwardERKN2at6TensorES5_";
    tensor "_ZN5torch2nn11NLLLossImpl7forwardERKN2at6TensorES5_";
    tensor "_ZN5torch2nn11RNNCellImpl7forwardERKN2at6TensorES5_";
    tensor "_ZN5torch2nn11SigmoidImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn11SoftmaxImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn11SoftminImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn11ZeroPadImplILm1ENS0_13ZeroPad1dImplEE7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn11ZeroPadImplILm2ENS0_13ZeroPad2dImplEE7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn11ZeroPadImplILm3ENS0_13ZeroPad3dImplEE7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn12BilinearImpl7forwardERKN2at6TensorES5_";
    tensor "_ZN5torch2nn12HardtanhImpl7forwardEN2at6TensorE";
    tensor "_ZN5torch2nn12IdentityImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn12LPPool1dImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn12LPPool2dImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn12LPPool3dImpl7forwardERKN2at6TensorE";
    values "_ZN5torch2nn12LSTMCellImpl7forwardERKN2at6TensorESt8optionalISt5tupleIJS3_S3_EEE";
    tensor "_ZN5torch2nn12SoftplusImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn12SoftsignImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn12UpsampleImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn13AvgPool1dImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn13AvgPool2dImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn13AvgPool3dImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn13Dropout2dImpl7forwardEN2at6TensorE";
    tensor "_ZN5torch2nn13Dropout3dImpl7forwardEN2at6TensorE";
    tensor "_ZN5torch2nn13EmbeddingImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn13GroupNormImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn13HuberLossImpl7forwardERKN2at6TensorES5_";
    tensor "_ZN5torch2nn13KLDivLossImpl7forwardERKN2at6TensorES5_";
    tensor "_ZN5torch2nn13LayerNormImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn13LeakyReLUImpl7forwardEN2at6TensorE";
    tensor "_ZN5torch2nn13MaxPool1dImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn13MaxPool2dImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn13MaxPool3dImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn13Softmax2dImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn13ThresholdImpl7forwardEN2at6TensorE";
    tensor "_ZN5torch2nn13UnflattenImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn14FunctionalImpl7forwardEN2at6TensorE";
    tensor "_ZN5torch2nn14HardshrinkImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn14LogSigmoidImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn14LogSoftmaxImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn14SoftshrinkImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn14TanhshrinkImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn15ConstantPadImplILm1ENS0_17ConstantPad1dImplEE7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn15ConstantPadImplILm2ENS0_17ConstantPad2dImplEE7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn15ConstantPadImplILm3ENS0_17ConstantPad3dImplEE7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn15MaxUnpool1dImpl7forwardERKN2at6TensorES5_RKSt8optionalISt6vectorIlSaIlEEE";
    tensor "_ZN5torch2nn15MaxUnpool2dImpl7forwardERKN2at6TensorES5_RKSt8optionalISt6vectorIlSaIlEEE";
    tensor "_ZN5torch2nn15MaxUnpool3dImpl7forwardERKN2at6TensorES5_RKSt8optionalISt6vectorIlSaIlEEE";
    tensor "_ZN5torch2nn15TransformerImpl7forwardERKN2at6TensorES5_S5_S5_S5_S5_S5_S5_";
    tensor "_ZN5torch2nn16AlphaDropoutImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn16EmbeddingBagImpl7forwardERKN2at6TensorES5_S5_";
    tensor "_ZN5torch2nn16PixelShuffleImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn16SmoothL1LossImpl7forwardERKN2at6TensorES5_";
    tensor "_ZN5torch2nn17CrossMapLRN2dImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn17ReflectionPadImplILm1ENS0_19ReflectionPad1dImplEE7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn17ReflectionPadImplILm2ENS0_19ReflectionPad2dImplEE7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn17ReflectionPadImplILm3ENS0_19ReflectionPad3dImplEE7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn18PixelUnshuffleImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn18PoissonNLLLossImpl7forwardERKN2at6TensorES5_";
    tensor "_ZN5torch2nn18ReplicationPadImplILm1ENS0_20ReplicationPad1dImplEE7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn18ReplicationPadImplILm2ENS0_20ReplicationPad2dImplEE7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn18ReplicationPadImplILm3ENS0_20ReplicationPad3dImplEE7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn18SoftMarginLossImpl7forwardERKN2at6TensorES5_";
    tensor "_ZN5torch2nn19ConvTranspose1dImpl7forwardERKN2at6TensorERKSt8optionalIN3c108ArrayRefIlEEE";
    tensor "_ZN5torch2nn19ConvTranspose2dImpl7forwardERKN2at6TensorERKSt8optionalIN3c108ArrayRefIlEEE";
    tensor "_ZN5torch2nn19ConvTranspose3dImpl7forwardERKN2at6TensorERKSt8optionalIN3c108ArrayRefIlEEE";
    tensor "_ZN5torch2nn19MultiMarginLossImpl7forwardERKN2at6TensorES5_";
    tensor "_ZN5torch2nn20CosineSimilarityImpl7forwardERKN2at6TensorES5_";
    tensor "_ZN5torch2nn20CrossEntropyLossImpl7forwardERKN2at6TensorES5_";
    tensor "_ZN5torch2nn20PairwiseDistanceImpl7forwardERKN2at6TensorES5_";
    tensor "_ZN5torch2nn21AdaptiveAvgPool1dImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn21AdaptiveAvgPool2dImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn21AdaptiveAvgPool3dImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn21AdaptiveMaxPool1dImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn21AdaptiveMaxPool2dImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn21AdaptiveMaxPool3dImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn21BCEWithLogitsLossImpl7forwardERKN2at6TensorES5_";
    tensor "_ZN5torch2nn21LocalResponseNormImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn21MarginRankingLossImpl7forwardERKN2at6TensorES5_S5_";
    tensor "_ZN5torch2nn21TripletMarginLossImpl7forwardERKN2at6TensorES5_S5_";
    tensor "_ZN5torch2nn22HingeEmbeddingLossImpl7forwardERKN2at6TensorES5_";
    values "_ZN5torch2nn22MultiheadAttentionImpl7forwardERKN2at6TensorES5_S5_S5_bS5_b";
    tensor "_ZN5torch2nn22TransformerDecoderImpl7forwardERKN2at6TensorES5_S5_S5_S5_S5_";
    tensor "_ZN5torch2nn22TransformerEncoderImpl7forwardERKN2at6TensorES5_S5_";
    tensor "_ZN5torch2nn23CosineEmbeddingLossImpl7forwardERKN2at6TensorES5_S5_";
    tensor "_ZN5torch2nn23FeatureAlphaDropoutImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn23FractionalMaxPool2dImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn23FractionalMaxPool3dImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn24MultiLabelMarginLossImpl7forwardERKN2at6TensorES5_";
    tensor "_ZN5torch2nn27TransformerDecoderLayerImpl7forwardEN2at6TensorERKS3_S5_S5_S5_S5_";
    tensor "_ZN5torch2nn27TransformerEncoderLayerImpl7forwardERKN2at6TensorES5_S5_";
    tensor "_ZN5torch2nn28MultiLabelSoftMarginLossImpl7forwardERKN2at6TensorES5_";
    values "_ZN5torch2nn30AdaptiveLogSoftmaxWithLossImpl7forwardERKN2at6TensorES5_";
    tensor "_ZN5torch2nn33TripletMarginWithDistanceLossImpl7forwardERKN2at6TensorES5_S5_";
    tensor "_ZN5torch2nn7ELUImpl7forwardEN2at6TensorE";
    tensor "_ZN5torch2nn7GLUImpl7forwardERKN2at6TensorE";
    values "_ZN5torch2nn7GRUImpl7forwardERKN2at6TensorES3_";
    values "_ZN5torch2nn7RNNImpl7forwardERKN2at6TensorES3_";
    tensor "_ZN5torch2nn8CELUImpl7forwardEN2at6TensorE";
    tensor "_ZN5torch2nn8FoldImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn8GELUImpl7forwardERKN2at6TensorE";
    values "_ZN5torch2nn8LSTMImpl7forwardERKN2at6TensorESt8optionalISt5tupleIJS3_S3_EEE";
    tensor "_ZN5torch2nn8MishImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn8ReLUImpl7forwardEN2at6TensorE";
    tensor "_ZN5torch2nn8SELUImpl7forwardEN2at6TensorE";
    tensor "_ZN5torch2nn8SiLUImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn8TanhImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn9PReLUImpl7forwardERKN2at6TensorE";
    tensor "_ZN5torch2nn9RReLUImpl7forwardEN2at6TensorE";
    tensor "_ZN5torch2nn9ReLU6Impl7forwardEN2at6TensorE";
}
