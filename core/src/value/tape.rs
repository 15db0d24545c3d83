//! A parsed value as one flat list of nodes, so that a binding builds its objects without a tree of small allocations
//! and without destructors on its stack.

mod parse;

/// One value, or the head of one whose parts follow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Node {
    /// Null.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A float, always finite.
    Float(f64),
    /// Text, to be read with [`Tape::str`].
    Str(Span),
    /// Bytes, to be read with [`Tape::bytes`].
    Binary(Span),
    /// An array: `len` values follow.
    Array {
        /// Number of items.
        len: u32,
    },
    /// An object: `len` pairs follow, each a [`Node::Str`] and a value.
    Object {
        /// Number of members.
        len: u32,
    },
}

/// A place among the bytes of a tape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    start: u32,
    len: u32,
}

/// The nodes of one value in the order of its text, the value itself first.
#[derive(Debug, Default)]
pub struct Tape {
    nodes: Vec<Node>,
    /// All text as UTF-8, and all binary. Text lies on character boundaries by construction.
    bytes: Vec<u8>,
}

impl Tape {
    /// The nodes, the value itself first.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The bytes of a [`Node::Binary`], or of the UTF-8 of a [`Node::Str`].
    pub fn bytes(&self, span: Span) -> &[u8] {
        &self.bytes[span.start as usize..][..span.len as usize]
    }

    /// The text of a [`Node::Str`]; of a [`Node::Binary`] that is not UTF-8, nothing.
    pub fn str(&self, span: Span) -> &str {
        std::str::from_utf8(self.bytes(span)).unwrap_or_default()
    }

    /// Parses canonical text.
    ///
    /// # Errors
    /// Says what is wrong with text that this crate has not written.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        parse::parse(text, Self::for_text(text))
    }

    /// Room for the nodes of most values and all their bytes, so that a small one is parsed without growing.
    fn for_text(text: &str) -> Self {
        Self { nodes: Vec::with_capacity(text.len() / 8 + 4), bytes: Vec::with_capacity(text.len()) }
    }

    /// Gives back the room that was not needed.
    pub(super) fn shrink(&mut self) {
        self.nodes.shrink_to_fit();
        self.bytes.shrink_to_fit();
    }

    pub(super) fn footprint(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>() + self.bytes.capacity()
    }

    fn push_bytes(&mut self, bytes: &[u8]) -> Span {
        let index = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let span = Span { start: index(self.bytes.len()), len: index(bytes.len()) };
        self.bytes.extend_from_slice(bytes);
        span
    }

    /// Leaves room for a head whose count is known only after its parts.
    fn open(&mut self) -> usize {
        self.nodes.push(Node::Null);
        self.nodes.len() - 1
    }
}
