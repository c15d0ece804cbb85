//! What a run wants of a scope and of a value, as bits: the same numbers in the session, in the seam and in the C header.

/// What is wanted of a scope: bits, and from bit 16 on the scope's place among the patches.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Wants(u32);

impl Wants {
    /// Its inputs are wanted.
    pub const INPUTS: u32 = 1;
    /// Its output is wanted.
    pub const OUTPUT: u32 = 2;
    /// Something in it or below it matters.
    pub const INSIDE: u32 = 4;
    /// Of a run: which tensors its parameters are ([`crate::Run::set_parameters`]).
    pub const PARAMETERS: u32 = 8;
    /// Everything is recorded.
    pub const RECORD: u32 = 16;
    /// Its operations are to be intercepted.
    pub const OPERATIONS: u32 = 32;
    /// Nothing in it matters, nor in any call of the same module from the same place, while the patches stay as they are.
    pub const IGNORED: u32 = 64;
    /// For the adapter alone: operands are to be shown before they are read.
    pub const OPERANDS: u32 = 128;
    /// For the adapter alone: the lines of source from which the scope is called are wanted.
    pub const SOURCE: u32 = 256;
    /// Where the number of the place begins. Places are counted from 1; 0 is none.
    pub const SITE_SHIFT: u32 = 16;

    /// The bits that a host gets: all but those that are for the adapter alone.
    const FOR_HOSTS: u32 = !(Wants::OPERANDS | Wants::SOURCE);

    /// Nothing at all.
    pub const NOTHING: Wants = Wants(0);

    pub fn new(bits: u32) -> Wants {
        Wants(bits)
    }

    pub fn bits(self) -> u32 {
        self.0
    }

    /// The bits for a host that knows no libtorch.
    pub fn for_hosts(self) -> u32 {
        self.0 & Wants::FOR_HOSTS
    }

    pub fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }

    /// Whether nothing in the scope or below it matters.
    pub fn is_cold(self) -> bool {
        !self.has(Wants::INSIDE)
    }

    #[must_use]
    pub fn with(self, bit: u32, on: bool) -> Wants {
        Wants(if on { self.0 | bit } else { self.0 })
    }

    #[must_use]
    pub fn without(self, bit: u32) -> Wants {
        Wants(self.0 & !bit)
    }

    /// The same with the scope's place among the patches, as far as the number fits.
    #[must_use]
    pub fn at(self, site: Option<u32>) -> Wants {
        let number = site.map_or(0, |site| site.saturating_add(1));
        match number < 1 << (32 - Wants::SITE_SHIFT) {
            true => Wants(self.0 | number << Wants::SITE_SHIFT),
            false => self,
        }
    }
}

impl std::fmt::Debug for Wants {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = [
            (Wants::INPUTS, "inputs"),
            (Wants::OUTPUT, "output"),
            (Wants::INSIDE, "inside"),
            (Wants::PARAMETERS, "parameters"),
            (Wants::RECORD, "record"),
            (Wants::OPERATIONS, "operations"),
            (Wants::IGNORED, "ignored"),
            (Wants::OPERANDS, "operands"),
            (Wants::SOURCE, "source"),
        ];
        let set = names.iter().filter(|(bit, _)| self.has(*bit));
        f.debug_set()
            .entries(set.map(|(_, name)| name))
            .entry(&(self.0 >> Wants::SITE_SHIFT))
            .finish()
    }
}

/// What is wanted of a value that is about to appear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ValueWants {
    /// Its elements, to record them.
    pub elements: bool,
    /// To have the targets applied that stand at its place.
    pub targets: bool,
    /// To be told what the value is made from ([`crate::Run::args`]).
    pub args: bool,
    /// To have the operation's inside computed ([`crate::Run::inner`]).
    pub inside: bool,
    /// Patches stand at values inside.
    pub inside_targets: bool,
}
