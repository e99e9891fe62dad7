// Lets tsc read abi.ts, which AssemblyScript compiles too.
type i32 = number
type f32 = number
