//! Hard cases.
