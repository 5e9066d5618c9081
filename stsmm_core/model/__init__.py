"""The multimodal neural network (MMNN): one encoder a modality, late fusion, unimodal heads."""
