"""The network: tensors and lengths in, predictions out; it knows nothing of files, utterances or training.

Shape language, used by every docstring below this package:

    B  utterances in a batch          L  transformer layers
    S  samples (16 kHz)               H  width of a hidden state
    T  frames (20 ms)                 K  hidden states kept side by side
    C  channels of the CNN's output   D  emotion dimensions

The network is a chain of stages; a frozen run of leading stages is computed once and stored:

    0      input: the waveform               [S]
    1      output of the CNN                 [T, C]
    2 + k  state after k transformer layers  [T, H], or [T, K, H] with K = k + 1 where all states are kept
    2 + L  all layers and the final norm     as above
    3 + L  pooled over time                  [1, K, H], only with mean pooling
    4 + L  mean and deviation over time      [2, K, H], off this chain: what a probe of the layers looks at

Axis 0 of a feature is time. A batch of features is padded at the end of axis 1, [B, T, ...], and comes with lengths
[B], the number of valid entries on that axis.
"""
