//! Who is tested: engine recipes, and the processes they start.
