package tributary;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.flink.api.connector.source.Boundedness;
import org.apache.flink.api.connector.source.ReaderOutput;
import org.apache.flink.api.connector.source.Source;
import org.apache.flink.api.connector.source.SourceReader;
import org.apache.flink.api.connector.source.SourceReaderContext;
import org.apache.flink.api.connector.source.SourceSplit;
import org.apache.flink.api.connector.source.SplitEnumerator;
import org.apache.flink.api.connector.source.SplitEnumeratorContext;
import org.apache.flink.core.io.InputStatus;
import org.apache.flink.core.io.SimpleVersionedSerializer;
import org.apache.flink.table.data.RowData;

/**
 * Reads the bench's row file. A block is its length in bytes, its number of events (both of four bytes, little endian)
 * and the events; of n readers each takes every n-th block, so that all of them are at about the same time of events.
 */
final class EventSource implements Source<RowData, EventSource.Part, Void> {
  /** Events given out in this process so far. */
  static final AtomicLong EVENTS = new AtomicLong();

  private static final int HEADER_BYTES = 8;
  /** Events given to the operators at a time. */
  private static final int EVENTS_PER_POLL = 256;

  private final String path;
  private final long limit;

  /** The first {@code limit} events of the file. */
  EventSource(String path, long limit) {
    this.path = path;
    this.limit = limit;
  }

  /** The blocks {@code first}, {@code first + of}, {@code first + 2 * of} and so on. */
  record Part(int first, int of) implements SourceSplit {
    @Override
    public String splitId() {
      return first + " of " + of;
    }
  }

  @Override
  public Boundedness getBoundedness() {
    return Boundedness.BOUNDED;
  }

  @Override
  public SourceReader<RowData, Part> createReader(SourceReaderContext context) {
    return new Reader();
  }

  @Override
  public SplitEnumerator<Part, Void> createEnumerator(SplitEnumeratorContext<Part> context) {
    return new Enumerator(context);
  }

  @Override
  public SplitEnumerator<Part, Void> restoreEnumerator(SplitEnumeratorContext<Part> context, Void nothing) {
    return new Enumerator(context);
  }

  @Override
  public SimpleVersionedSerializer<Part> getSplitSerializer() {
    return new PartSerializer();
  }

  @Override
  public SimpleVersionedSerializer<Void> getEnumeratorCheckpointSerializer() {
    return new NothingSerializer();
  }

  private final class Reader implements SourceReader<RowData, Part> {
    private final CompletableFuture<Void> assigned = new CompletableFuture<>();
    private Part part;
    private RandomAccessFile file;
    private long block;
    private long eventsBefore;
    private ByteBuffer bytes;
    private int eventsLeft;

    @Override
    public void start() {}

    @Override
    public InputStatus pollNext(ReaderOutput<RowData> output) throws IOException {
      if (part == null) {
        return InputStatus.NOTHING_AVAILABLE;
      }
      if (eventsLeft == 0 && !nextBlock()) {
        return InputStatus.END_OF_INPUT;
      }
      int events = Math.min(eventsLeft, EVENTS_PER_POLL);
      for (int event = 0; event < events; event++) {
        output.collect(EventTable.decode(bytes));
      }
      eventsLeft -= events;
      EVENTS.addAndGet(events);
      return InputStatus.MORE_AVAILABLE;
    }

    /** Reads the next block of the part; false at the end. */
    private boolean nextBlock() throws IOException {
      byte[] header = new byte[HEADER_BYTES];
      while (file.getFilePointer() < file.length() && eventsBefore < limit) {
        file.readFully(header);
        ByteBuffer numbers = ByteBuffer.wrap(header).order(ByteOrder.LITTLE_ENDIAN);
        int length = numbers.getInt();
        int events = (int) Math.min(numbers.getInt(), limit - eventsBefore);
        boolean ours = block % part.of() == part.first();
        block++;
        eventsBefore += events;
        if (ours) {
          byte[] content = new byte[length];
          file.readFully(content);
          bytes = ByteBuffer.wrap(content).order(ByteOrder.LITTLE_ENDIAN);
          eventsLeft = events;
          return true;
        }
        file.skipBytes(length);
      }
      return false;
    }

    @Override
    public void addSplits(List<Part> parts) {
      try {
        part = parts.get(0);
        file = new RandomAccessFile(path, "r");
      } catch (IOException error) {
        throw new UncheckedIOException(error);
      }
      assigned.complete(null);
    }

    @Override
    public CompletableFuture<Void> isAvailable() {
      return assigned;
    }

    @Override
    public List<Part> snapshotState(long checkpoint) {
      return List.of();
    }

    @Override
    public void notifyNoMoreSplits() {}

    @Override
    public void close() throws IOException {
      if (file != null) {
        file.close();
      }
    }
  }

  private static final class Enumerator implements SplitEnumerator<Part, Void> {
    private final SplitEnumeratorContext<Part> context;

    Enumerator(SplitEnumeratorContext<Part> context) {
      this.context = context;
    }

    @Override
    public void addReader(int reader) {
      context.assignSplit(new Part(reader, context.currentParallelism()), reader);
      context.signalNoMoreSplits(reader);
    }

    @Override
    public void start() {}

    @Override
    public void handleSplitRequest(int reader, String host) {}

    @Override
    public void addSplitsBack(List<Part> parts, int reader) {
      throw new UnsupportedOperationException("a failed run is not repeated");
    }

    @Override
    public Void snapshotState(long checkpoint) {
      return null;
    }

    @Override
    public void close() {}
  }

  private static final class PartSerializer implements SimpleVersionedSerializer<Part> {
    @Override
    public int getVersion() {
      return 0;
    }

    @Override
    public byte[] serialize(Part part) {
      return ByteBuffer.allocate(8).putInt(part.first()).putInt(part.of()).array();
    }

    @Override
    public Part deserialize(int version, byte[] bytes) {
      ByteBuffer numbers = ByteBuffer.wrap(bytes);
      return new Part(numbers.getInt(), numbers.getInt());
    }
  }

  /** The state of the enumerator, of which there is none. */
  private static final class NothingSerializer implements SimpleVersionedSerializer<Void> {
    @Override
    public int getVersion() {
      return 0;
    }

    @Override
    public byte[] serialize(Void nothing) {
      return new byte[0];
    }

    @Override
    public Void deserialize(int version, byte[] bytes) {
      return null;
    }
  }
}
