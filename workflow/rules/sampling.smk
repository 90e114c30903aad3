# coming
