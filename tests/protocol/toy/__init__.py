"""The toy dialect: `{"say": …}` in, `{"t": …}` out."""
